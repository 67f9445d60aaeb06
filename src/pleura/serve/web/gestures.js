// What pointers do on the radiograph: window, move, zoom.
//
// Exports: listenTo, windowBy.

const PER_WHEEL = 0.0015;
/** Share of the window's first width that a pixel of dragging is. */
const PER_PIXEL = 1 / 250;

/** stage: a Stage. mode(): "window" or "pan", of a plain drag. hovered(point): {x, y} of the canvas, or null. */
export function listenTo(stage, { mode, hovered }) {
  const { canvas } = stage, down = new Map();
  let windows = false;

  const pointOf = event => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  canvas.addEventListener("pointerdown", event => {
    if (!stage.picture) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, pointOf(event));
    windows = mode() === "window" && event.button === 0 && !event.shiftKey;
    hovered(pointOf(event));
  });
  canvas.addEventListener("pointermove", event => {
    const at = pointOf(event), before = down.get(event.pointerId);
    if (before && stage.picture) {
      if (down.size === 1) one(before, at);
      else two(event.pointerId, before, at);
      down.set(event.pointerId, at);
    }
    hovered(at);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, event => {
      down.delete(event.pointerId);
      windows = windows && down.size === 0;  // a finger that is left of two does not window
    });
  }
  canvas.addEventListener("pointerleave", event => {
    if (event.pointerType === "mouse") hovered(null);
  });
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("dblclick", () => stage.picture && stage.fit());
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    const { x, y } = pointOf(event);
    stage.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 4 : 1) * PER_WHEEL), x, y);
    hovered({ x, y });
  }, { passive: false });

  function one(before, at) {
    if (windows) windowBy(stage, at.x - before.x, at.y - before.y);
    else stage.pan(at.x - before.x, at.y - before.y);
  }

  function two(id, before, at) {
    const other = [...down].find(([pointer]) => pointer !== id)[1];
    const apart = point => Math.hypot(point.x - other.x, point.y - other.y);
    const middle = point => ({ x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 });
    const now = middle(at), then = middle(before);
    stage.pan(now.x - then.x, now.y - then.y);
    if (apart(before) > 0) stage.zoom(apart(at) / apart(before), now.x, now.y);
  }
}

/** Change the window as a drag of so many pixels does: across, its width; down, its centre, which darkens. */
export function windowBy(stage, across, down) {
  const { center, width } = stage.window, step = stage.picture.window.width * PER_PIXEL;
  // Of a narrow window the steps are small, too.
  const fine = Math.min(1, width / stage.picture.window.width + 0.02);
  stage.setWindow({ ...stage.window, center: center + down * step * fine, width: width + across * step * fine });
}
