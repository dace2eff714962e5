// A picture that says where one points, in picture coordinates: pixel k sits at k, its area is [k - 1/2, k + 1/2].
// One question is under way at a time: while Python draws, only the newest position waits.

const EDGE = 0.499; // keeps round(y) a valid pixel at the border

function make(tag, parent, style, attributes = {}) {
  const node = document.createElement(tag);
  Object.assign(node.style, style);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.appendChild(node);
  return node;
}

function showBytes(img, view) {
  if (!view || !view.byteLength) return;
  const before = img.src;
  img.src = URL.createObjectURL(new Blob([view]));
  if (before.startsWith("blob:")) img.addEventListener("load", () => URL.revokeObjectURL(before), { once: true });
}

function render({ model, el }) {
  const height = model.get("height"), width = model.get("width"), snap = model.get("snap"), beside = model.get("beside");
  const card = make("div", el, {
    boxSizing: "border-box", border: "1px solid rgba(127,127,127,.35)", borderRadius: "8px", padding: "12px 16px",
    width: "fit-content", maxWidth: "100%", lineHeight: "1.45", color: "var(--jp-content-font-color1, inherit)",
    fontFamily: "var(--jp-content-font-family, inherit)", fontSize: "var(--jp-content-font-size1, inherit)",
  }, { class: "course-pointer", "data-lm-suppress-shortcuts": "true" });
  const row = make("div", card, { display: "flex", flexWrap: "wrap", gap: "24px" });
  const surface = make("div", row, {
    position: "relative", flex: "none", width: model.get("shown") + "px", maxWidth: "100%", alignSelf: "flex-start",
    cursor: "crosshair", touchAction: "none", userSelect: "none",
  }, { tabindex: "0", role: "application", "aria-roledescription": "picture to point at", "aria-label": model.get("alt") });
  const picture = { display: "block", width: "100%", height: "auto", margin: "0", imageRendering: model.get("crisp") ? "pixelated" : "auto" };
  const target = make("img", surface, picture, { alt: model.get("alt"), draggable: "false" });
  const ring = make("span", surface, {
    position: "absolute", width: "14px", height: "14px", margin: "-7px 0 0 -7px", boxSizing: "border-box", pointerEvents: "none",
    border: "2px solid #000", borderRadius: "50%", boxShadow: "0 0 0 2px #fff, inset 0 0 0 2px #fff", display: beside ? "block" : "none",
  }, { "aria-hidden": "true" });
  const result = beside ? make("img", row, { display: "block", maxWidth: "100%", height: "auto", margin: "0", alignSelf: "flex-start" }, { alt: "what Python drew for this position" }) : target;
  const status = make("div", card, { marginTop: "8px", fontVariantNumeric: "tabular-nums" }, { role: "status", "aria-live": "polite" });
  const message = make("div", card, { fontStyle: "italic" }, { role: "status" });
  const watch = make("div", card, { maxWidth: Math.max(420, model.get("shown")) + "px" });
  watch.innerHTML = model.get("watch");

  let at = model.get("at"), held = false, pressed = null, waiting = null, busy = false, frame = 0;
  const clamp = (value, count) => {
    const inside = Math.min(Math.max(value, -EDGE), count - 1 + EDGE);
    return snap ? Math.round(inside) + 0 : Math.round(inside * 1000) / 1000;
  };

  function draw() {
    ring.style.top = ((at[0] + 0.5) / height) * 100 + "%";
    ring.style.left = ((at[1] + 0.5) / width) * 100 + "%";
    const digits = snap ? 0 : 1;
    status.textContent = `y = ${at[0].toFixed(digits)}, x = ${at[1].toFixed(digits)}` +
      (held ? " (held: click to let go)" : " (click to hold, arrow keys to move)");
  }

  function ask() {
    frame = 0;
    if (busy || !waiting) return;
    const [place, event] = waiting;
    waiting = null;
    const last = model.get("at");
    if (place[0] === last[0] && place[1] === last[1]) return;
    busy = true;
    model.set("event", event);
    model.set("at", place);
    model.save_changes();
  }

  function move(y, x, event) {
    at = [clamp(y, height), clamp(x, width)];
    waiting = [at, event];
    draw();
    if (!frame) frame = requestAnimationFrame(ask);
  }

  function point(e, event) {
    const box = target.getBoundingClientRect();
    move(((e.clientY - box.top) / box.height) * height - 0.5, ((e.clientX - box.left) / box.width) * width - 0.5, event);
  }

  surface.addEventListener("pointermove", (e) => {
    if (pressed) point(e, "drag");
    else if (!held && e.pointerType === "mouse") point(e, "hover");
  });
  surface.addEventListener("pointerdown", (e) => {
    pressed = [e.clientX, e.clientY];
    surface.setPointerCapture(e.pointerId);
    point(e, "click");
  });
  surface.addEventListener("pointerup", (e) => {
    if (!pressed) return;
    const still = Math.hypot(e.clientX - pressed[0], e.clientY - pressed[1]) < 4;
    held = still && e.pointerType === "mouse" ? !held : true;
    pressed = null;
    draw();
  });
  surface.addEventListener("pointercancel", () => { pressed = null; });
  surface.addEventListener("keydown", (e) => {
    e.stopPropagation();
    const step = model.get("step") * (e.shiftKey ? 10 : 1);
    const by = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] }[e.key];
    if (!by) return;
    e.preventDefault();
    held = true; // the keys have the word until the next click
    move(at[0] + by[0], at[1] + by[1], "key");
  });

  const answered = () => { busy = false; if (waiting && !frame) frame = requestAnimationFrame(ask); };
  const redraw = () => showBytes(result, model.get("picture"));
  const complain = () => { message.textContent = model.get("message"); };
  model.on("change:answered", answered);
  model.on("change:picture", redraw);
  model.on("change:message", complain);
  if (beside) showBytes(target, model.get("base"));
  redraw();
  complain();
  draw();
  return () => {
    model.off("change:answered", answered);
    model.off("change:picture", redraw);
    model.off("change:message", complain);
    for (const img of [target, result]) if (img.src.startsWith("blob:")) URL.revokeObjectURL(img.src);
  };
}

export default { render };
