"""Detection in plain loops: what the fast forms of `course_lib.detection` must equal (chapters 13 to 16)."""
