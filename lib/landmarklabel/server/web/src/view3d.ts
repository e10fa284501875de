/** A volume with its points: three planes through one place, linked, and a projection. */

import { button, make, put } from "./dom";
import type { Window } from "./plane";
import { Projection } from "./projection";
import { AXIAL, CORONAL, SAGITTAL, SlicePlane, type Links, type Shared } from "./sliceplane";
import { say } from "./texts";
import type { CaseView, Drawn, Picture, ViewEvents } from "./view";
import { greysFor, triple, Volume } from "./volume";
import { apply, type Frame, type Point, type Position } from "./wire";

const BLOCK_WAIT_MS = 150; // after the last move, until the samples around it are fetched

export class View3D implements CaseView {
  readonly element = make("div", { class: "view view3d" });
  private readonly shared: Shared = { volume: null, crossing: [0, 0, 0], window: [0, 1], isInverted: false, greys: new Uint8Array(), version: 0 };
  private readonly slices: readonly SlicePlane[];
  private readonly planes: readonly SlicePlane[];
  private active: SlicePlane;
  private frame: Frame | null = null;
  private blockTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(events: ViewEvents) {
    const links: Links = {
      shared: this.shared,
      cross: (index) => this.cross(index),
      setWindow: (window) => this.setWindow(window, this.shared.isInverted),
      entered: (plane) => (this.active = plane),
    };
    const followed: ViewEvents = {
      ...events,
      place: (name, position, isFinal) => {
        const done = events.place(name, position, isFinal);
        if (done && isFinal) this.reveal(position);
        return done;
      },
      clicked: (position) => {
        events.clicked(position);
        this.reveal(position);
      },
    };
    this.slices = [AXIAL, SAGITTAL, CORONAL].map((orientation) => new SlicePlane(followed, links, orientation));
    this.planes = [...this.slices, new Projection(events, links)];
    this.active = this.slices[0] as SlicePlane;
    for (const plane of this.planes) {
      const enlarge = button(say("enlargeButton"), "", () => put(enlarge, say(this.enlarge(plane) ? "allPlanesButton" : "enlargeButton")));
      plane.element.append(enlarge);
      this.element.append(plane.element);
    }
  }

  get isPlacing(): boolean {
    return this.active.isPlacing;
  }

  set isPlacing(is: boolean) {
    for (const plane of this.planes) plane.isPlacing = is;
  }

  show(picture: Picture | null, frame: Frame | null, label: string): Promise<void> {
    const volume = picture instanceof Volume ? picture : null;
    this.frame = frame;
    this.shared.volume = volume;
    this.shared.crossing = volume === null ? [0, 0, 0] : volume.size.map((n) => Math.floor((n - 1) / 2));
    delete this.element.dataset["shown"];
    if (volume !== null) {
      volume.onBlock = () => this.shared.volume === volume && this.repaint();
      this.setWindow([0, 1], false);
      this.fit();
      this.fetchBlock();
      requestAnimationFrame(() => (this.element.dataset["shown"] = label));
    } else this.repaint();
    this.element.classList.toggle("ready", volume !== null);
    return Promise.resolve();
  }

  setDrawn(drawn: Drawn): void {
    for (const plane of this.planes) plane.setDrawn(drawn);
  }

  setPoints(points: readonly Point[], others: readonly Point[], selected: string | null): void {
    for (const plane of this.planes) plane.setPoints(points, others, selected);
  }

  letGo(): void {
    for (const plane of this.planes) plane.letGo();
  }

  fit(): void {
    for (const plane of this.planes) plane.fit();
  }

  zoomBy(factor: number): void {
    for (const plane of this.planes) plane.zoomBy(factor);
  }

  invert(): void {
    this.setWindow(this.shared.window, !this.shared.isInverted);
  }

  resetWindow(): void {
    this.setWindow([0, 1], this.shared.isInverted);
  }

  get isDragging(): boolean {
    return this.planes.some((plane) => plane.isDragging);
  }

  alone(isAlone: boolean): void {
    for (const plane of this.planes) plane.alone(isAlone);
  }

  reveal(position: Position): void {
    this.cross(apply(this.frame?.toIndex ?? [], position));
    for (const plane of this.planes) plane.reveal(position);
  }

  nudged(position: Position, dx: number, dy: number): Position {
    return this.active.nudged(position, dx, dy);
  }

  scroll(slices: number): void {
    this.active.scroll(slices);
  }

  private cross(index: readonly number[]): void {
    const { volume } = this.shared;
    if (volume === null) return;
    this.shared.crossing = triple(volume.size.map((n, axis) => Math.min(n - 1, Math.max(0, index[axis] ?? 0))));
    for (const plane of this.planes) plane.refresh();
    this.fetchBlock();
  }

  private fetchBlock(): void {
    clearTimeout(this.blockTimer);
    this.blockTimer = setTimeout(() => void this.shared.volume?.look(this.shared.crossing), BLOCK_WAIT_MS);
  }

  private setWindow(window: Window, isInverted: boolean): void {
    if (this.frame === null) return;
    this.shared.window = window;
    this.shared.isInverted = isInverted;
    this.shared.greys = greysFor(this.frame, window, isInverted);
    this.repaint();
  }

  private repaint(): void {
    this.shared.version++;
    for (const plane of this.planes) plane.refresh();
  }

  /** One plane over the whole view, or all four again. */
  private enlarge(plane: SlicePlane): boolean {
    const isAlone = this.element.classList.toggle("one");
    for (const each of this.planes) each.element.hidden = isAlone && each !== plane;
    if (isAlone) this.active = plane; // no key acts on a plane that is not seen
    return isAlone;
  }
}
