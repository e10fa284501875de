/** What the page asks of whatever shows a case: one image, or a volume in several planes. */

import type { Flat } from "./flat";
import type { Frame, Point, Position } from "./wire";
import type { Volume } from "./volume";

export type Picture = Flat | Volume;

export interface ViewEvents {
  /** A point was moved; the answer is whether it may be there. */
  place(name: string, position: Position, isFinal: boolean): boolean;
  select(name: string): void;
  /** A drag was broken off: the point is where it was. */
  cancelled(): void;
  /** The place of a click while placing. */
  clicked(position: Position): void;
}

export interface Drawn {
  readonly lines: readonly (readonly [Position, Position])[];
  readonly expected: Position | null;
}

export interface CaseView {
  readonly element: HTMLElement;
  isPlacing: boolean;
  /** Show an image; null takes it away. */
  show(picture: Picture | null, frame: Frame | null, label: string): Promise<void>;
  /** Lines of a measurement, and the place where the other points expect a landmark. */
  setDrawn(drawn: Drawn): void;
  setPoints(points: readonly Point[], others: readonly Point[], selected: string | null): void;
  /** Whatever a hand is doing belongs to nothing any more. */
  letGo(): void;
  /** The whole image, in the middle. */
  fit(): void;
  zoomBy(factor: number): void;
  invert(): void;
  /** Brightness and contrast as at first. */
  resetWindow(): void;
  /** Whether a hand holds a point or the picture. */
  readonly isDragging: boolean;
  /** Draw only the selected point. */
  alone(isAlone: boolean): void;
  /** Bring a point into view. */
  reveal(position: Position): void;
  /** A position moved by samples along the axes of the screen. */
  nudged(position: Position, dx: number, dy: number): Position;
  /** Through a volume, by slices. */
  scroll(slices: number): void;
}
