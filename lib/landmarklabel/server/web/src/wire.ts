/** What goes over the wire: the server's JSON, read into values the rest of the program trusts. */

import { say } from "./texts";

export type State = "unset" | "predicted" | "placed" | "accepted" | "absent";
export type Position = readonly number[]; // LPS mm: two numbers in a 2D image, three in a volume or a slice of one

/** One landmark of a case. `error` is the expected error in mm, or in pixels where the image has no spacing. */
export interface Point {
  readonly name: string;
  readonly state: State;
  readonly position: Position | null;
  readonly error: number | null;
  readonly flagged: boolean;
  readonly covariance?: readonly (readonly number[])[]; // of where it may be, as the server said with a proposal
}

export interface Landmark {
  readonly name: string;
  readonly definition: string;
  readonly image: string; // a data URL, or empty
}

/** A measurement of the task: the lines that are drawn for it, each between two points that are means of landmarks. */
export interface MeasurementOf {
  readonly name: string;
  readonly definition: string;
  readonly lines: readonly (readonly [readonly string[], readonly string[]])[];
}

/** What the points of a case measure. */
export interface Measured {
  readonly name: string;
  readonly definition: string;
  readonly value: number | null;
  readonly unit: string;
  readonly low: number | null; // ends of the 95 % interval
  readonly high: number | null;
  readonly reason: string; // why there is no value
  readonly intervalReason: string; // why there is no interval, or what has to be known of it
  readonly norm: { readonly mean: number; readonly sd: number | null; readonly source: string } | null;
}

export interface Task {
  readonly measurements: readonly MeasurementOf[];
  readonly name: string;
  readonly dims: number;
  readonly landmarks: readonly Landmark[];
  readonly mmPerPixel: number | null; // of pictures, where the task states it
}

/** Where an image lies: rows that take sample numbers and 1 to mm, and the way back. */
export interface Frame {
  readonly size: readonly number[];
  readonly toMm: readonly (readonly number[])[];
  readonly toIndex: readonly (readonly number[])[];
  readonly unit: string;
  readonly window: readonly [number, number];
  readonly range: readonly [number, number];
  readonly voxels: readonly [number, number]; // of a volume: a value is the first times the sample as sent, plus the second
  readonly pixels: string;
  readonly changed: boolean;
}

export interface Revision {
  readonly revision: number;
  readonly author: string;
  readonly created: string;
  readonly hash: string; // of what it holds: after the study was restored from a copy, another one may have its number
  readonly points: readonly Point[];
  readonly isDraft?: true; // no revision: what the same person has done in another browser
}

export interface Suggestion {
  readonly points: readonly Point[];
  readonly next: string | null;
  readonly origin: string;
  readonly secondPass: boolean;
  readonly cautions: readonly string[]; // what to know of the model first
}

export interface CaseRow {
  readonly image: string;
  readonly revision: number;
  readonly author: string;
  readonly labelled: boolean;
}

/** A point of a case, and how far it lies from where the case's other points expect it. */
export interface QualityRow {
  readonly image: string;
  readonly landmark: string;
  readonly revision: number; // in which the point lies there
  readonly timesMedian: number;
  readonly off: number; // in the unit of the study
  readonly expected: Position | null; // where the others expect it
  readonly swappedWith: string; // empty, or whose place this point lies at, and that one at its
  readonly checked: { readonly author: string; readonly created: string } | null;
}

type Places = readonly (Position | null)[];

/** Cases laid over one another; null for what a case lacks. */
export interface Shape {
  readonly names: readonly string[];
  readonly typical: Places;
  readonly cases: readonly Places[];
  readonly listed: ReadonlyMap<string, { readonly points: Places; readonly expected: Places }>;
}

export interface Quality {
  readonly cases: number;
  readonly points: number;
  readonly page: number;
  readonly pages: number;
  readonly unit: string;
  readonly rows: readonly QualityRow[];
  readonly tooFew: readonly string[]; // landmarks that too few cases have for their points to be looked at
  readonly shape: Shape | null; // null where there are too few cases
}

/** The answer is not what this program expects: another program, or a page to log in to a network. */
export class WireError extends Error {}

export const isByPerson = (point: Point): boolean =>
  point.state === "placed" || point.state === "accepted" || point.state === "absent";

const STATES: readonly State[] = ["unset", "predicted", "placed", "accepted", "absent"];

type Json = Record<string, unknown>;

export function object(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new WireError(`${what} is no object`);
  return value as Json;
}

export function list(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) throw new WireError(`${what} is no list`);
  return value as unknown[];
}

export const text = (value: unknown): string => (typeof value === "string" ? value : "");
export const number = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);

function position(value: unknown): Position | null {
  if (value === null || value === undefined) return null;
  const numbers = list(value, "a position");
  if (numbers.length < 2 || numbers.length > 3 || !numbers.every((v) => typeof v === "number" && Number.isFinite(v)))
    throw new WireError("a position has two or three numbers");
  return numbers as number[];
}

/** Points of all landmarks in the task's order; those that are not there are unset. */
export function points(value: unknown, task: Task): Point[] {
  const byName = new Map<string, Point>();
  for (const one of list(value, "landmarks")) {
    const row = object(one, "a landmark");
    const state = STATES.find((s) => s === row["status"]);
    if (state === undefined) throw new WireError(`${text(row["status"])} is no status`);
    const place = position(row["position"]);
    if ((place !== null) !== (state === "predicted" || state === "placed" || state === "accepted"))
      throw new WireError(`${text(row["name"])} is ${state}, and ${place === null ? "has no" : "has a"} position`);
    const error = row["expected_error_mm"];
    byName.set(text(row["name"]), {
      name: text(row["name"]),
      state,
      position: place,
      error: typeof error === "number" ? error : null,
      flagged: row["flagged"] === true,
      ...(place !== null && row["covariance"] ? { covariance: matrix(row["covariance"]) } : {}),
    });
  }
  const known = new Set(task.landmarks.map((l) => l.name));
  const added = [...byName.keys()].find((name) => !known.has(name)); // what is sent from here would unset it
  if (added !== undefined) throw new WireError(say("taskGained", { name: added }));
  return task.landmarks.map((l) => byName.get(l.name) ?? unset(l.name));
}

export const unset = (name: string): Point => ({ name, state: "unset", position: null, error: null, flagged: false });

/** Points as the server takes them. */
export const rows = (all: readonly Point[]): object[] =>
  all.map((p) => ({ name: p.name, status: p.state, ...(p.position ? { position: p.position } : {}) }));

/** What a person has said, as the server takes it for a suggestion. */
export function given(all: readonly Point[]): { fixed: Record<string, Position>; absent: string[] } {
  const said = all.filter((p) => p.state === "placed" || p.state === "accepted");
  const fixed: Record<string, Position> = Object.fromEntries(said.flatMap((p) => (p.position ? [[p.name, p.position]] : [])));
  return { fixed, absent: all.filter((p) => p.state === "absent").map((p) => p.name) };
}

/** Whether a person has spoken of the same points in both; where they are may differ. */
export function saysTheSame(one: readonly Point[], other: readonly Point[]): boolean {
  const [a, b] = [given(one), given(other)];
  const names = (of: typeof a): string => JSON.stringify([Object.keys(of.fixed), of.absent]);
  return names(a) === names(b);
}

export function task(value: unknown): Task {
  const content = object(value, "the task");
  const landmarks = list(content["landmarks"], "the task's landmarks").map((one) => {
    const row = object(one, "a landmark");
    const image = text(row["image"]);
    return { name: text(row["name"]), definition: text(row["definition"]), image: image.startsWith("data:") ? image : "" };
  });
  if (!landmarks.length || landmarks.some((l) => !l.name)) throw new WireError("the task has no landmarks");
  const measurements = list(content["measurements"] ?? [], "the measurements").map((one) => object(one, "a measurement"));
  const drawn = measurements.map((m) => ({ name: text(m["name"]), definition: text(m["definition"]), lines: linesOf(m, measurements) }));
  const scale = content["scale"] ? object(content["scale"], "the scale rule") : {};
  const mmPerPixel = "mm_per_pixel" in scale ? number(scale["mm_per_pixel"]) : null;
  return { name: text(content["name"]), dims: number(content["dims"]) === 3 ? 3 : 2, landmarks, measurements: drawn, mmPerPixel };
}

type Line = readonly [readonly string[], readonly string[]];

/** The lines of a measurement, and of those that it is made of. */
function linesOf(m: Json, all: readonly Json[], seen = new Set<unknown>()): Line[] {
  if (seen.has(m["name"])) return []; // each part once, in however many others it is
  seen.add(m["name"]);
  const names = (value: unknown): string[] => (Array.isArray(value) ? value.map(text) : [text(value)]);
  const ends = (value: unknown): Line[] => {
    const points = Array.isArray(value) ? value.map(names) : [];
    return points.slice(1).map((point, i): Line => [points[i] ?? [], point]);
  };
  const own = [m["points"], m["line"], m["plane"]].flatMap(ends);
  const pairs = Array.isArray(m["lines"]) ? m["lines"].flatMap(ends) : [];
  const of = Array.isArray(m["of"]) ? m["of"].map(text) : m["of"] ? Object.keys(object(m["of"], "the parts")) : [];
  const parts = all.filter((other) => of.includes(text(other["name"])));
  return [...own, ...pairs, ...parts.flatMap((part) => linesOf(part, all, seen))];
}

const numberOrNull = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);

export function measured(value: unknown, of: Task): Measured[] {
  const content = object(value, "the answer");
  return list(content["measurements"], "the measurements").map((one) => {
    const row = object(one, "a measurement");
    const norm = row["norm"] ? object(row["norm"], "a norm") : null;
    return {
      name: text(row["name"]),
      definition: of.measurements.find((m) => m.name === row["name"])?.definition ?? "",
      value: numberOrNull(row["value"]),
      unit: text(row["unit"]),
      low: numberOrNull(row["low"]),
      high: numberOrNull(row["high"]),
      reason: text(row["reason"]),
      intervalReason: text(row["interval_reason"]),
      norm: norm && { mean: number(norm["mean"]), sd: numberOrNull(norm["sd"]), source: text(norm["source"]) },
    };
  });
}

const matrix = (value: unknown): number[][] =>
  list(value, "a matrix").map((row) => list(row, "a row").map((v) => number(v)));

export function frame(value: unknown): Frame {
  const content = object(value, "the frame");
  const pair = (key: string): [number, number] => {
    const [low, high] = list(content[key], key);
    return [number(low), number(high)];
  };
  return {
    size: list(content["size"], "the size").map((v) => number(v)),
    toMm: matrix(content["to_mm"]),
    toIndex: matrix(content["to_index"]),
    unit: content["unit"] === "px" ? "px" : "mm",
    window: pair("window"),
    range: pair("range"),
    voxels: "voxels" in content ? pair("voxels") : [1, 0],
    pixels: text(content["pixels"]),
    changed: content["changed"] === true,
  };
}

export function revision(value: unknown, of: Task): Revision {
  const content = object(value, "a revision");
  return {
    revision: number(content["revision"]),
    author: text(content["author"]),
    created: text(content["created"]),
    hash: text(content["sha256"]),
    points: points(content["landmarks"], of),
  };
}

export function quality(value: unknown): Quality {
  const content = object(value, "the answer");
  return {
    cases: number(content["cases"]),
    points: number(content["points"]),
    page: number(content["page"]),
    pages: number(content["pages"]),
    unit: content["unit"] === "px" ? "px" : "mm",
    rows: list(content["rows"], "the points").map((one) => {
      const row = object(one, "a point");
      const checked = row["checked"] ? object(row["checked"], "a check") : null;
      return {
        image: text(row["image"]),
        landmark: text(row["landmark"]),
        revision: number(row["revision"]),
        timesMedian: number(row["times_median"]),
        off: number(row["off"]),
        expected: position(row["expected"]),
        swappedWith: text(row["swapped_with"]),
        checked: checked && { author: text(checked["author"]), created: text(checked["created"]) },
      };
    }),
    tooFew: list(content["too_few"] ?? [], "the landmarks").map(text),
    shape: content["shape"] ? shape(object(content["shape"], "the shape")) : null,
  };
}

function shape(content: Json): Shape {
  const places = (value: unknown): Places => list(value, "the points of a case").map(position);
  const listed = Object.entries(object(content["listed"], "the listed cases")).map(([image, value]) => {
    const one = object(value, "a listed case");
    return [image, { points: places(one["points"]), expected: places(one["expected"]) }] as const;
  });
  return {
    names: list(content["names"], "the names").map(text),
    typical: places(content["typical"]),
    cases: list(content["cases"], "the cases").map(places),
    listed: new Map(listed),
  };
}

export function suggestion(value: unknown, of: Task): Suggestion {
  const content = object(value, "the answer");
  const next = text(content["next"]);
  return {
    points: points(content["landmarks"], of),
    next: of.landmarks.some((l) => l.name === next) ? next : null,
    origin: text(content["origin"]),
    secondPass: content["second_pass"] === true,
    cautions: list(content["cautions"] ?? [], "the cautions").map(text),
  };
}

/** Apply the rows of a frame. */
export const apply = (rowsOf: readonly (readonly number[])[], at: Position): number[] =>
  rowsOf.map((row) => row.reduce((sum, factor, i) => sum + factor * (i < at.length ? (at[i] ?? 0) : i === row.length - 1 ? 1 : 0), 0));
