/** The magnifier beside what a hand holds. */

import { make } from "./dom";

const ZOOM = 4; // times the zoom of the view
const SIDE = 180;

/** Draw a part of the picture, in samples from its corner, into all of a square. */
export type Paint = (context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, side: number) => void;

export class Loupe {
  readonly element = make("canvas", { class: "loupe" });

  constructor() {
    this.element.width = this.element.height = SIDE;
    this.hide();
  }

  hide(): void {
    this.element.hidden = true;
  }

  /** `x`, `y`: its middle, in samples; `across`, `down`: screen pixels of a sample in the view. */
  show(x: number, y: number, across: number, down: number, isRight: boolean, paint: Paint): void {
    const context = this.element.getContext("2d");
    if (context === null) return;
    const [width, height] = [SIDE / (across * ZOOM), SIDE / (down * ZOOM)];
    context.imageSmoothingEnabled = across * ZOOM < 3;
    context.clearRect(0, 0, SIDE, SIDE);
    paint(context, x - width / 2, y - height / 2, width, height, SIDE);
    context.strokeStyle = "#ffb000";
    const half = SIDE / 2;
    for (const [x0, y0, x1, y1] of [[0, half, half - 6, half], [half + 6, half, SIDE, half], [half, 0, half, half - 6], [half, half + 6, half, SIDE]] as const) {
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.stroke();
    }
    this.element.classList.toggle("right", isRight);
    this.element.hidden = false;
  }
}
