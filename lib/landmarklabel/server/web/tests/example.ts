/** A task of four landmarks, and points of it. */
import type { Point, Task } from "../src/wire";

export const TASK: Task = {
  name: "t",
  dims: 2,
  measurements: [],
  mmPerPixel: null,
  landmarks: ["a", "b", "c", "d"].map((name) => ({ name, definition: "", image: "" })),
};

export function proposed(name: string, x: number, more: Partial<Point> = {}): Point {
  return { name, state: "predicted", position: [x, 10], error: 1, flagged: false, ...more };
}
