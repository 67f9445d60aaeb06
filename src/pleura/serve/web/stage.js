// The radiograph on a canvas: window, zoom, pan, outline and heat. It draws no more pixels than the screen has four of.
//
// Exports: Stage.

import { heatOf } from "./heat.js";
import { paint, pyramidOf, shadesOf } from "./pyramid.js";

const OUTLINE = "#ff5a4f", HALO = "rgba(0, 0, 0, .65)";
const LARGEST_SCALE = 32;

/** Shows one picture: {columns, rows, grey, window, aspect, levels}, and the outline that it is given. */
export class Stage {
  /** changed: is called after each drawing, and when what is under the cursor has changed. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.picture = null;
    this.window = null;
    this.inverted = false;
    this.showsOutline = true;
    this.showsHeat = false;
    this.view = { scale: 1, x: 0, y: 0 };  // CSS pixels: of a column, and of the upper left corner
    this._isFitted = true;
    this._scratch = document.createElement("canvas");
    this._painted = null;  // what is on it
    this._lines = null;
    this._frame = 0;
    this._drawn = [];  // resolve when the next frame is on the screen
    new ResizeObserver(() => this._resized()).observe(canvas);
  }

  /** Show a picture, fitted; null for none. */
  show(picture) {
    this.picture = picture;
    this._levels = picture && pyramidOf(picture.grey, picture.columns, picture.rows);
    this._heat = this._lines = this._painted = null;
    this.inverted = false;
    if (picture) this.resetWindow();
    this.fit();
    this.redraw();  // none: what was shown before is gone from the screen
  }

  /** lines: of outlineOf. */
  outline(lines) {
    this._lines = new Path2D();
    for (let i = 0; i < lines.length; i += 4) {
      this._lines.moveTo(lines[i], lines[i + 1]);
      this._lines.lineTo(lines[i + 2], lines[i + 3]);
    }
    this.redraw();
  }

  resetWindow() {
    this.setWindow({ ...this.picture.window });
  }

  setWindow(window) {
    this.window = { ...window, width: Math.max(window.width, this.picture.window.width / 1e4, 1e-3) };
    this._shades = null;
    this.redraw();
  }

  setInverted(inverted) {
    this.inverted = inverted;
    this._shades = null;
    this.redraw();
  }

  /** The whole picture, in the middle. */
  fit() {
    this._isFitted = true;
    if (this.picture) this._lookAt({ left: 0, top: 0, right: this.picture.columns, bottom: this.picture.rows }, 1);
  }

  /** A part of the picture, with as much around it. */
  lookAt(box) {
    this._isFitted = false;
    this._lookAt(box, 0.7);
  }

  _lookAt({ left, top, right, bottom }, share) {
    const { width, height } = this._size(), { aspect } = this.picture;
    const fits = Math.min(width / (right - left), height / ((bottom - top) * aspect));
    const scale = Math.min(fits * share, LARGEST_SCALE);
    this.view = {
      scale,
      x: width / 2 - (scale * (left + right)) / 2,
      y: height / 2 - (scale * aspect * (top + bottom)) / 2,
    };
    this.redraw();
  }

  /** by: more than 1 enlarges. x, y: the point that stays where it is, in CSS pixels of the canvas. */
  zoom(by, x = this._size().width / 2, y = this._size().height / 2) {
    if (!this.picture) return;
    const { width, height } = this._size(), { columns, rows, aspect } = this.picture;
    const least = Math.min(width / columns, height / (rows * aspect)) / 4;
    const scale = Math.min(Math.max(this.view.scale * by, least), LARGEST_SCALE);
    const real = scale / this.view.scale;
    this._isFitted = false;
    this.view = { scale, x: x - (x - this.view.x) * real, y: y - (y - this.view.y) * real };
    this._keepInSight();
  }

  pan(across, down) {
    if (!this.picture) return;
    this._isFitted = false;
    this.view = { ...this.view, x: this.view.x + across, y: this.view.y + down };
    this._keepInSight();
  }

  /** {column, row} under a point of the canvas, whole numbers; null beside the picture. */
  pixelAt(x, y) {
    if (!this.picture) return null;
    const { scale, x: left, y: top } = this.view, { columns, rows, aspect } = this.picture;
    const column = Math.floor((x - left) / scale), row = Math.floor((y - top) / (scale * aspect));
    return column >= 0 && row >= 0 && column < columns && row < rows ? { column, row } : null;
  }

  redraw() {
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this._draw();
      this.changed();
      for (const done of this._drawn.splice(0)) done();
    });
  }

  /** Resolves when all that was asked for is drawn. */
  drawn() {
    return this._frame ? new Promise(done => this._drawn.push(done)) : Promise.resolve();
  }

  _keepInSight() {
    const { width, height } = this._size(), { columns, rows, aspect } = this.picture, view = this.view;
    const margin = Math.min(40, width / 4, height / 4);
    view.x = Math.min(Math.max(view.x, margin - view.scale * columns), width - margin);
    view.y = Math.min(Math.max(view.y, margin - view.scale * aspect * rows), height - margin);
    this.redraw();
  }

  _size() {
    return { width: this.canvas.clientWidth || 1, height: this.canvas.clientHeight || 1 };
  }

  _resized() {
    const { width, height } = this._size(), ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (this._isFitted) this.fit();
    else if (this.picture) this._keepInSight();
    this.redraw();
  }

  _draw() {
    const context = this.canvas.getContext("2d", { alpha: false });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.picture) return;
    const ratio = devicePixelRatio || 1, { columns, rows, aspect } = this.picture;
    const place = {
      across: this.view.scale * ratio,
      down: this.view.scale * aspect * ratio,
      x: this.view.x * ratio,
      y: this.view.y * ratio,
    };
    this._drawGrey(context, place);
    if (this.showsHeat) {
      const { canvas, covers } = (this._heat ??= this._heatCanvas());
      context.save();
      context.beginPath();
      context.rect(place.x, place.y, columns * place.across, rows * place.down);
      context.clip();
      context.drawImage(canvas, place.x, place.y, covers[0] * place.across, covers[1] * place.down);
      context.restore();
    }
    if (this.showsOutline && this._lines) this._drawOutline(context, place, ratio);
  }

  _drawGrey(context, { across, down, x, y }) {
    const number = Math.min(Math.max(Math.floor(Math.log2(1 / Math.min(across, down))), 0), this._levels.length - 1);
    const level = this._levels[number], factor = 2 ** number;
    const left = Math.max(Math.floor(-x / (across * factor)) - 1, 0), top = Math.max(Math.floor(-y / (down * factor)) - 1, 0);
    const right = Math.min(Math.ceil((this.canvas.width - x) / (across * factor)) + 1, level.columns);
    const bottom = Math.min(Math.ceil((this.canvas.height - y) / (down * factor)) + 1, level.rows);
    const part = { left, top, width: right - left, height: bottom - top };
    if (part.width <= 0 || part.height <= 0) return;
    const key = [number, left, top, right, bottom].join();
    if (!this._shades || this._painted !== key) {
      this._shades ??= shadesOf(this.picture.grey, this.window, this.inverted);
      this._paint(level, part);
      this._painted = key;
    }
    context.imageSmoothingEnabled = true;
    context.drawImage(
      this._scratch, 0, 0, part.width, part.height,
      x + left * factor * across, y + top * factor * down, part.width * factor * across, part.height * factor * down,
    );
  }

  _paint(level, part) {
    const scratch = this._scratch;
    // It only grows: a canvas of another size is a new one.
    if (scratch.width < part.width) scratch.width = part.width;
    if (scratch.height < part.height) scratch.height = part.height;
    const image = new ImageData(part.width, part.height);
    paint(new Uint32Array(image.data.buffer), level, part, this._shades);
    scratch.getContext("2d", { alpha: false }).putImageData(image, 0, 0);
  }

  _drawOutline(context, { across, down, x, y }, ratio) {
    const lines = new Path2D();
    lines.addPath(this._lines, new DOMMatrix([across, 0, 0, down, x, y]));
    context.lineCap = "square";
    for (const [colour, width] of [[HALO, 3.5], [OUTLINE, 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * ratio;
      context.stroke(lines);
    }
  }

  _heatCanvas() {
    const { levels, columns, rows } = this.picture;
    const heat = heatOf(levels, columns, rows), canvas = document.createElement("canvas");
    canvas.width = heat.columns;
    canvas.height = heat.rows;
    canvas.getContext("2d").putImageData(new ImageData(heat.pixels, heat.columns, heat.rows), 0, 0);
    return { canvas, covers: heat.covers };
  }
}
