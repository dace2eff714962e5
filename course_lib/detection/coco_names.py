"""What COCO calls its classes, for detectors that were trained on it (chapters 16, 19 and 20)."""

UNUSED = "N/A"
"""The name of a number that COCO gives to no class; a detector has a column for it, and nothing is ever called so."""

BY_ID = (
    *(UNUSED, "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", UNUSED, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse"),
    *("sheep", "cow", "elephant", "bear", "zebra", "giraffe", UNUSED, "backpack", "umbrella", UNUSED),
    *(UNUSED, "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat"),
    *("baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", UNUSED, "wine glass", "cup", "fork"),
    *("knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza"),
    *("donut", "cake", "chair", "couch", "potted plant", "bed", UNUSED, "dining table", UNUSED, UNUSED),
    *("toilet", UNUSED, "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", UNUSED, "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
"""The names by the numbers 0 to 90 of COCO's files, of which 80 are used: the columns of DETR and its descendants."""
NAMES = tuple(name for name in BY_ID if name != UNUSED)
"""The 80 names alone, in the order of their numbers: the columns of SSD's line, behind the background."""
