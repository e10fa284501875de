/** All cases laid over one another: a dot for each point, their medians, and the chosen case with where its others expect a point. */

import { make } from "./dom";
import { say, type TextName } from "./texts";
import type { Position, QualityRow, Shape } from "./wire";

const SIZE = 600; // of the drawing, in its own units
const MARGIN = 30;
const LONGEST = 30; // characters of a name beside its point
// Which two axes of LPS a drawing shows, right and down; where the second is up, it is turned.
const PLANES: readonly { name: TextName; axes: readonly [number, number]; isUp: boolean }[] = [
  { name: "planeCoronal", axes: [0, 2], isUp: true },
  { name: "planeSagittal", axes: [1, 2], isUp: true },
  { name: "planeAxial", axes: [0, 1], isUp: false },
];

export class ShapeView {
  readonly element = make("section", { class: "shape" });
  private readonly svg = element("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": say("shapeLabel") });
  private readonly tools = make("div", { class: "tools" });
  private plane = 0;
  private shown: { shape: Shape; row: QualityRow | null } | null = null;

  constructor() {
    this.element.append(this.svg, make("p", { class: "legend", text: say("shapeLegend") }), this.tools);
  }

  show(shape: Shape | null, row: QualityRow | null): void {
    this.shown = shape === null ? null : { shape, row };
    this.draw();
  }

  private draw(): void {
    this.svg.replaceChildren();
    this.tools.replaceChildren();
    if (this.shown === null) return;
    const { shape, row } = this.shown;
    const at = this.drawing(shape, row);
    const dots = shape.cases.flatMap((one) => one.map((p) => (p === null ? "" : `M${at(p).join(" ")}h0`))).join("");
    this.svg.append(element("path", { class: "dots", d: dots }));
    shape.typical.forEach((p, k) => {
      if (p === null) return;
      const [x, y] = at(p);
      const circle = element("circle", { class: "typical", cx: x, cy: y, r: 3 });
      const name = element("title", {});
      name.textContent = shape.names[k] ?? "";
      circle.append(name);
      this.svg.append(circle);
    });
    if (row !== null) this.drawCase(shape, row, at);
    if (shape.names.length && this.isDeep(shape)) this.offerPlanes();
  }

  private drawCase(shape: Shape, row: QualityRow, at: (p: Position) => [number, number]): void {
    const one = shape.listed.get(row.image);
    const k = shape.names.indexOf(row.landmark);
    if (one === undefined) return;
    for (const p of one.points) {
      if (p === null) continue;
      const [x, y] = at(p);
      this.svg.append(element("circle", { class: "own", cx: x, cy: y, r: 4 }));
    }
    const point = one.points[k] ?? null;
    const expected = one.expected[k] ?? null;
    if (point === null || expected === null) return;
    const [x, y] = at(point);
    const [u, v] = at(expected);
    this.svg.append(
      element("path", { class: "off", d: `M${u} ${v}L${x} ${y}` }),
      element("path", { class: "expected", d: `M${u - 8} ${v}h16M${u} ${v - 8}v16` }),
      element("circle", { class: "outlier", cx: x, cy: y, r: 8 }),
    );
    const isLeft = x < SIZE / 2;
    const name = element("text", { x: isLeft ? x + 12 : x - 12, y: Math.max(y - 8, 14), "text-anchor": isLeft ? "start" : "end" });
    name.textContent = row.landmark.length > LONGEST ? `${row.landmark.slice(0, LONGEST)}…` : row.landmark;
    this.svg.append(name);
  }

  /** From mm to the drawing: the chosen case and the typical places fit. */
  private drawing(shape: Shape, row: QualityRow | null): (p: Position) => [number, number] {
    const chosen = this.isDeep(shape) ? PLANES[this.plane] : undefined;
    const [a, b] = chosen?.axes ?? [0, 1];
    const sign = chosen?.isUp ? -1 : 1;
    const flat = (p: Position): [number, number] => [p[a] ?? 0, sign * (p[b] ?? 0)];
    const one = row === null ? undefined : shape.listed.get(row.image); // others may lie anywhere
    const all = [shape.typical, one?.points ?? [], one?.expected ?? []].flat().filter((p): p is Position => p !== null).map(flat);
    const [left, right] = range(all.map(([x]) => x));
    const [top, bottom] = range(all.map(([, y]) => y));
    const scale = (SIZE - 2 * MARGIN) / Math.max(right - left, bottom - top, 1e-9);
    return (p) => {
      const [x, y] = flat(p);
      return [round(SIZE / 2 + scale * (x - (left + right) / 2)), round(SIZE / 2 + scale * (y - (top + bottom) / 2))];
    };
  }

  private isDeep(shape: Shape): boolean {
    return shape.typical.some((p) => p !== null && p.length === 3);
  }

  private offerPlanes(): void {
    PLANES.forEach((one, i) => {
      const choose = make("button", { text: say(one.name) });
      choose.type = "button";
      choose.setAttribute("aria-pressed", String(i === this.plane));
      choose.addEventListener("click", () => {
        this.plane = i;
        this.draw();
      });
      this.tools.append(choose);
    });
  }
}

const range = (values: readonly number[]): [number, number] =>
  values.reduce<[number, number]>(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
const round = (value: number): number => Math.round(value * 10) / 10;

function element(tag: string, attributes: Record<string, string | number>): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}
