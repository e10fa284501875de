/** The state of annotating one case: points, undo and redo, where it came from. No DOM, no network. */

import { isByPerson, unset, type Point, type Position, type Revision, type Task } from "./wire";

const VISIBLE = 0.003; // of the shape's extent: moves below it are not counted

/** What a step was, for undo and redo; `texts` says it in words. */
export type What = "place" | "accept" | "acceptAll" | "unlock" | "absent" | "predict" | "restore" | "take";

interface Step {
  readonly what: What;
  readonly name: string;
  readonly points: readonly Point[];
}

/** What is kept of a case in the browser. */
export interface Kept {
  readonly image: string;
  readonly points: readonly Point[];
  readonly baseRevision: number;
  readonly baseHash: string;
  readonly reason: string;
  readonly repeat: boolean;
  readonly edits: number;
  readonly delivered: number;
  readonly pixels: string;
  readonly copy: string; // which working copy it is: edits are counted in each by itself
  readonly draftSaved: string; // when the server had the draft of it that this browser sent last
}

const newCopy = (): string => crypto.getRandomValues(new Uint32Array(4)).join("-");

export class Annotation {
  points: readonly Point[];
  next: string | null = null; // what the server says should be placed next
  edits = 0; // how often a person has changed something
  delivered = 0; // which of these edits the server has acknowledged
  pixels = ""; // hash of the image that the points were placed on
  baseHash = ""; // of the revision that the edits started from
  drafted = -1; // after how many edits the server has a draft
  draftSaved = "";
  copy = newCopy();
  private readonly past: Step[] = [];
  private future: Step[] = [];
  private moving: string | null = null; // the point that is being dragged

  constructor(
    readonly task: Task,
    readonly image: string,
    points: readonly Point[] | null = null,
    public baseRevision = 0,
    readonly reason = "",
    readonly repeat = false,
  ) {
    this.points = points ?? task.landmarks.map((l) => unset(l.name));
  }

  static of(kept: Kept, task: Task): Annotation {
    const byName = new Map(kept.points.map((p) => [p.name, p]));
    const points = task.landmarks.map((l) => byName.get(l.name) ?? unset(l.name));
    const made = new Annotation(task, kept.image, points, kept.baseRevision, kept.reason, kept.repeat);
    made.baseHash = kept.baseHash;
    made.edits = kept.edits;
    made.delivered = kept.delivered;
    made.pixels = kept.pixels;
    made.draftSaved = kept.draftSaved;
    made.copy = kept.copy;
    return made;
  }

  kept(): Kept {
    const { image, points, baseRevision, baseHash, reason, repeat, edits, delivered, pixels, copy, draftSaved } = this;
    return { image, points, baseRevision, baseHash, reason, repeat, edits, delivered, pixels, copy, draftSaved };
  }

  /** Whether that revision is newer than the one that the edits started from, or another of its number. */
  isOvertakenBy(newest: Pick<Revision, "revision" | "hash">): boolean {
    const isSame = !this.baseHash || !newest.hash || newest.hash === this.baseHash;
    return newest.revision > this.baseRevision || (newest.revision === this.baseRevision && !isSame);
  }

  get isUnsent(): boolean {
    return this.edits > this.delivered;
  }

  point(name: string): Point {
    return this.points.find((p) => p.name === name) ?? unset(name);
  }

  /** A person put the point here; all moves of one drag are undone together. */
  place(name: string, position: Position, isFinal = true): void {
    const goesOn = this.moving === name;
    this.change("place", [{ ...unset(name), state: "placed", position }], name, goesOn);
    this.moving = isFinal ? null : name;
  }

  /** A drag has ended where the point cannot be: it is as before the drag, as if nobody had touched it. */
  takeMoveBack(): void {
    const step = this.moving === null ? undefined : this.past.pop();
    if (step !== undefined) this.points = step.points;
    this.edits += step !== undefined ? 1 : 0; // what was kept meanwhile has to be replaced
    this.moving = null;
  }

  /** Points of a person that are kept under names which the task no longer has. */
  static gone(kept: Kept, task: Task): string[] {
    const names = new Set(task.landmarks.map((l) => l.name));
    return kept.points.filter((p) => isByPerson(p) && !names.has(p.name)).map((p) => p.name);
  }

  /** A person agrees with the position; false where there is none. */
  accept(name: string): boolean {
    const point = this.point(name);
    if (point.position === null) return false;
    this.change("accept", [{ ...point, state: "accepted", flagged: false }], name);
    return true;
  }

  /** Agree with everything that is proposed, but for some landmarks. */
  acceptAll(but: readonly string[] = []): number {
    const left = this.points.filter((p) => p.state === "predicted" && !but.includes(p.name)); // what was placed stays told apart
    this.change("acceptAll", left.map((p) => ({ ...p, state: "accepted" as const })));
    return left.length;
  }

  /** An accepted point may be moved again; an absent one may be placed again. */
  unlock(name: string): void {
    const point = this.point(name);
    if (point.state === "absent") this.change("unlock", [unset(name)], name);
    if (point.state === "accepted") this.change("unlock", [{ ...point, state: "placed" }], name);
  }

  markAbsent(name: string): void {
    this.change("absent", [{ ...unset(name), state: "absent" }], name);
  }

  /** Take in a prediction; what a person has said stays. */
  propose(proposed: readonly Point[], following: string | null): void {
    this.change("predict", this.merged(proposed), "", false, false);
    this.next = following;
  }

  /** The others follow what a person did last, and are undone with it. Returns how many have moved visibly since then. */
  follow(proposed: readonly Point[], following: string | null): number {
    const before = this.past.at(-1)?.points ?? this.points;
    const least = VISIBLE * extent(proposed);
    this.points = this.merged(proposed);
    this.next = following;
    return this.points.filter((p, i) => !isByPerson(p) && differ(p, before[i] ?? p, least)).length;
  }

  private merged(proposed: readonly Point[]): Point[] {
    return this.points.map((old, i) => doubted(old, proposed[i] ?? old));
  }

  /** Another version of the whole case; undo brings this one back. */
  replaceAll(points: readonly Point[], what: What): void {
    this.change(what, points);
  }

  /** The server has saved the state after so many edits, as this revision. */
  acknowledged(edits: number, { revision, hash }: Pick<Revision, "revision" | "hash">): void {
    this.delivered = Math.max(this.delivered, edits);
    this.startFrom({ revision, hash });
  }

  /** The edits are made on top of this revision. */
  startFrom({ revision, hash }: Pick<Revision, "revision" | "hash">): void {
    this.baseRevision = revision;
    this.baseHash = hash;
  }

  /** Names of points nobody has spoken about, the most doubtful first: flagged, then by expected error, then unset. */
  doubtful(): string[] {
    const rank = (p: Point): [number, number, number] => [p.state === "unset" ? 1 : 0, p.flagged ? 0 : 1, -(p.error ?? 0)];
    const left = this.points.filter((p) => !isByPerson(p)).map((p) => ({ name: p.name, rank: rank(p) }));
    left.sort((a, b) => a.rank[0] - b.rank[0] || a.rank[1] - b.rank[1] || a.rank[2] - b.rank[2]);
    return left.map((one) => one.name);
  }

  /** Names of points that a person placed and that contradict the others. */
  slips(): string[] {
    return this.points.filter((p) => p.state === "placed" && p.flagged).map((p) => p.name);
  }

  /** Take the last change back; what it was, or null. */
  undo(): { what: What; name: string } | null {
    return this.step(this.past, this.future);
  }

  redo(): { what: What; name: string } | null {
    return this.step(this.future, this.past);
  }

  private step(from: Step[], to: Step[]): { what: What; name: string } | null {
    const step = from.pop();
    if (step === undefined) return null;
    to.push({ ...step, points: this.points });
    const own = step.points.some((p, i) => p !== this.points[i] && (isByPerson(p) || isByPerson(this.points[i] ?? p)));
    this.edits += own ? 1 : 0;
    this.points = step.points;
    this.moving = null;
    return { what: step.what, name: step.name };
  }

  private change(what: What, changed: readonly Point[], name = "", goesOn = false, byPerson = true): void {
    const byName = new Map(changed.map((p) => [p.name, p]));
    const points = this.points.map((p) => byName.get(p.name) ?? p);
    this.moving = null;
    if (points.every((p, i) => same(p, this.points[i]))) return;
    if (!goesOn) {
      this.past.push({ what, name, points: this.points });
      this.future = [];
    }
    this.points = points;
    this.edits += byPerson ? 1 : 0;
  }
}

/** Landmarks of which a person has said something in one version that is not in the other. */
export function differences(mine: readonly Point[], theirs: readonly Point[]): Point[] {
  return theirs.filter((p, i) => {
    const own = mine[i];
    return own !== undefined && (isByPerson(own) || isByPerson(p)) && !(samePlace(own, p) && isByPerson(own) === isByPerson(p));
  });
}

function samePlace(a: Point, b: Point): boolean {
  return (a.state === "absent") === (b.state === "absent") && String(a.position) === String(b.position);
}

function same(a: Point, b: Point | undefined): boolean {
  return (
    b !== undefined && a.state === b.state && a.error === b.error && a.flagged === b.flagged && String(a.position) === String(b.position)
  );
}

/** A proposal, except where a person has spoken: such a point never changes, but may be flagged. */
function doubted(old: Point, proposed: Point): Point {
  if (!isByPerson(old)) return proposed;
  const isSame = old.state === "placed" && proposed.state === "placed" && String(old.position) === String(proposed.position);
  return isSame ? { ...old, flagged: proposed.flagged } : old;
}

function extent(points: readonly Point[]): number {
  const places = points.flatMap((p) => (p.position ? [p.position] : []));
  const spans = (places[0] ?? []).map((_, axis) => {
    const along = places.map((p) => p[axis] ?? 0);
    return Math.max(...along) - Math.min(...along);
  });
  return Math.hypot(...spans);
}

function differ(a: Point, b: Point, least: number): boolean {
  if (a.position === null || b.position === null) return a.state !== b.state;
  return Math.hypot(...a.position.map((v, i) => v - (b.position?.[i] ?? v))) > least;
}

interface Copy {
  readonly image: string;
  readonly repeat: boolean;
  readonly copy: string;
}

/** Whether both are of one working copy: another person's, or another browser's, of the same case is counted apart. */
export const isOf = (one: Copy, other: Copy): boolean => one.image === other.image && one.repeat === other.repeat && one.copy === other.copy;
