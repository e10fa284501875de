/** What this browser keeps until the server has it: a case's state at every edit, and submissions on their way.
 *
 * Everything is in localStorage, which writes at once: a tab that is closed in the next moment loses nothing. Texts are read
 * back with care, as another version of this program may have written them.
 */

import type { Kept } from "./annotation";
import type { Answer, Api, Submission, Who } from "./api";
import { say } from "./texts";
import { isByPerson, object, text, number, list, type Point, type State, type Task } from "./wire";

export type EntryState = "waits" | "refused" | "conflict";

/** A submission that has not arrived. `edits` is the number of its working copy when it was made. */
export interface Entry extends Submission {
  readonly state: EntryState;
  readonly why: string;
  readonly edits: number;
  readonly copy: string;
}

/** There is no space left, or the browser keeps nothing for this page. What was to be kept is there as long as the page is. */
export class StorageFault extends Error {}

const KINDS = /^(case|gone|out|answer|set) |^open$/; // of what is kept, at the beginning of its key
const WORK = /^(case|out|answer) /; // what the server is to have

export class Storage {
  fault = ""; // why something is in this page only
  private readonly unkept = new Map<string, string>(); // by its name: what the browser did not take

  /** `study` tells studies and people apart: nobody finds, or sends, what another has done. `store` is the browser's.
   *
   * `nameless` is what was done in this browser before people had to log in. It is nobody's, until somebody says it is theirs.
   */
  constructor(
    private readonly study: string,
    private readonly store: globalThis.Storage = globalThis.localStorage,
    private readonly nameless: Storage | null = null,
  ) {}

  /** Of a person; empty for a server that asks nobody for a token. */
  static of(path: string, study: string, person: string): Storage {
    const store = globalThis.localStorage;
    const begin = `${path} ${study} `;
    const made = new Storage(begin + encodeURIComponent(person), store, person ? new Storage(begin, store) : null);
    if (encodeURIComponent(person) !== person) made.moveHere(new Storage(begin + person, store), () => null); // as earlier versions kept it
    return made;
  }

  /** How much of what was done in this browser before people had to log in is nobody's yet. */
  get nobodys(): number {
    const from = this.nameless;
    return from === null ? 0 : from.names("").filter((name) => WORK.test(from.key(name))).length;
  }

  /** It is this person's: their cases are listed, and a submission waits until they say to send it. */
  takeOver(): void {
    const asked = (entry: Entry): Entry => ({ ...entry, state: "refused", why: say("madeBefore", { who: entry.author || say("somebody") }) });
    if (this.nameless !== null) this.moveHere(this.nameless, asked);
  }

  /** Move what people have done; `changed`: a submission as it is to be here, null for as it is. What is here already stays. */
  private moveHere(from: Storage, changed: (entry: Entry) => Entry | null): void {
    for (const name of from.names("")) {
      const [key, value] = [from.key(name), from.store.getItem(name)];
      if (value === null || !WORK.test(key) || this.store.getItem(this.name(key)) !== null) continue;
      const entry = key.startsWith("out ") ? readEntry(parse(value)) : null;
      const other = entry === null ? null : changed(entry);
      try {
        this.store.setItem(this.name(key), other === null ? value : JSON.stringify(other));
      } catch {
        continue; // it stays where it is, until there is space
      }
      from.store.removeItem(name);
    }
  }

  keepCase(kept: Kept): void {
    this.write(this.caseKey(kept.image, kept.repeat), kept);
  }

  /** Note which case is open, so that it opens again. */
  noteOpen(image: string, repeat: boolean): void {
    this.write("open", { image, repeat });
  }

  loadCase(image: string, repeat: boolean): Kept | null {
    return readKept(this.read(this.caseKey(image, repeat)));
  }

  /** Put what is kept of a case aside for good: the task has changed, and it holds more than can be shown. */
  copyCase(kept: Kept): void {
    this.write(`gone ${kept.image} ${kept.edits}`, kept);
  }

  dropCase(image: string, repeat: boolean): void {
    this.remove(this.name(this.caseKey(image, repeat)));
  }

  /** The case that was open last. */
  opened(): { image: string; repeat: boolean } | null {
    const found = this.read("open");
    return found ? { image: text(found["image"]), repeat: found["repeat"] === true } : null;
  }

  /** Cases with something that was neither submitted nor acknowledged. */
  unsent(): Kept[] {
    return this.all("case ")
      .map(readKept)
      .filter((kept): kept is Kept => kept !== null && kept.edits > kept.delivered);
  }

  put(entry: Entry): void {
    this.write(`out ${entry.key}`, entry);
  }

  /** Submissions that have not arrived, oldest first. */
  entries(): Entry[] {
    return this.all("out ")
      .map(readEntry)
      .filter((entry): entry is Entry => entry !== null)
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  forget(key: string): void {
    this.remove(this.name(`out ${key}`));
  }

  /** Answers on the page of the labels' quality that the server does not have yet, oldest first. */
  answers(): Answer[] {
    return this.all("answer ")
      .filter((found) => found !== null && text(found["image"]) !== "" && text(found["key"]) !== "")
      .map((found) => ({
        image: text(found?.["image"]),
        landmark: text(found?.["landmark"]),
        revision: number(found?.["revision"]),
        author: text(found?.["author"]),
        isRight: found?.["isRight"] === true,
        key: text(found?.["key"]),
        landmarks: Array.isArray(found?.["landmarks"]) ? (found["landmarks"] as unknown[]) : [],
        pixels: text(found?.["pixels"]),
      }))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  putAnswer(answer: Answer): void {
    this.write(`answer ${answer.key}`, answer);
  }

  forgetAnswer(key: string): void {
    this.remove(this.name(`answer ${key}`));
  }

  setting(name: string): string {
    const found = this.read(`set ${name}`);
    return found ? text(found["value"]) : "";
  }

  set(name: string, value: string): void {
    this.write(`set ${name}`, { value });
  }

  /** Whether anything is in this page only. */
  get isPartlyKept(): boolean {
    return this.unkept.size > 0;
  }

  /** After a logout nothing of this study is left in this browser. */
  clear(): void {
    for (const name of this.names("")) this.remove(name);
  }

  private caseKey(image: string, repeat: boolean): string {
    return `case ${repeat ? "again" : "once"} ${image}`;
  }

  /** The full name of something of this study in the browser. */
  name(key: string): string {
    return `landmarklabel ${this.study} ${key}`;
  }

  private key(name: string): string {
    return name.slice(this.name("").length);
  }

  private names(begin: string): string[] {
    const wanted = this.name(begin);
    const found = new Set(this.unkept.keys());
    for (let i = 0; i < this.store.length; i++) found.add(this.store.key(i) ?? "");
    return [...found].filter((name) => name.startsWith(wanted) && KINDS.test(this.key(name))); // not of a longer name
  }

  private all(begin: string): (Record<string, unknown> | null)[] {
    return this.names(begin).map((name) => this.at(name));
  }

  private read(key: string): Record<string, unknown> | null {
    return this.at(this.name(key));
  }

  private at(name: string): Record<string, unknown> | null {
    return parse(this.unkept.get(name) ?? this.store.getItem(name));
  }

  private remove(name: string): void {
    this.store.removeItem(name);
    this.unkept.delete(name);
    this.keepTheRest(); // there may be space now
  }

  private write(key: string, value: object): void {
    const name = this.name(key);
    this.unkept.delete(name);
    this.unkept.set(name, JSON.stringify(value));
    this.keepTheRest();
    if (this.unkept.has(name)) throw new StorageFault(this.fault);
  }

  /** Have the browser keep what it has space for, the newest first; each by itself: a small one fits where a large one does not. */
  keepTheRest(): void {
    this.fault = "";
    for (const [name, content] of [...this.unkept].reverse()) {
      try {
        this.store.setItem(name, content);
        this.unkept.delete(name);
      } catch (error) {
        const isFull = error instanceof DOMException && error.name === "QuotaExceededError"; // whose message names what was written
        this.fault = isFull ? say("noSpace") : error instanceof Error ? error.message : String(error);
      }
    }
  }
}

/** The study that a page is opened on, for this person: from now on nothing is said to another study, or in another's name. */
export async function opened(api: Api, who: Who): Promise<{ task: Task; storage: Storage }> {
  api.person = who.name;
  const task = await api.task();
  return { task, storage: Storage.of(api.root.pathname, await api.study(), who.name) };
}

let lastTime = 0;

/** A key that nobody else makes, and that comes after every earlier one in alphabetical order, even within a millisecond. */
export function newKey(): string {
  lastTime = Math.max(Date.now(), lastTime + 1);
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `${String(lastTime).padStart(15, "0")}-${Array.from(random, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}

function parse(found: string | null): Record<string, unknown> | null {
  try {
    return found === null ? null : object(JSON.parse(found), "what was kept");
  } catch {
    return null;
  }
}

const STATES: readonly State[] = ["unset", "predicted", "placed", "accepted", "absent"];

function readPoints(value: unknown): Point[] {
  return list(value, "points").map((one) => {
    const row = object(one, "a point");
    const state = STATES.find((s) => s === row["state"]) ?? "unset";
    const numbers = Array.isArray(row["position"]) ? (row["position"] as unknown[]) : [];
    const position = numbers.length >= 2 && numbers.every((v) => typeof v === "number") ? (numbers as number[]) : null;
    const error = typeof row["error"] === "number" ? row["error"] : null;
    const spread = Array.isArray(row["covariance"]) ? { covariance: row["covariance"] as number[][] } : {}; // the server looks at it
    const point = { name: text(row["name"]), state, position, error, flagged: row["flagged"] === true, ...spread };
    return isByPerson(point) || position !== null ? point : { ...point, state: "unset" as const };
  });
}

function readKept(found: Record<string, unknown> | null): Kept | null {
  try {
    if (found === null || !text(found["image"])) return null;
    return {
      image: text(found["image"]),
      points: readPoints(found["points"]),
      baseRevision: number(found["baseRevision"]),
      baseHash: text(found["baseHash"]), // of an earlier version none
      reason: text(found["reason"]),
      repeat: found["repeat"] === true,
      edits: number(found["edits"]),
      delivered: number(found["delivered"]),
      pixels: text(found["pixels"]),
      copy: text(found["copy"]), // of an earlier version none, and one copy at a time
      draftSaved: text(found["draftSaved"]),
    };
  } catch {
    return null;
  }
}

function readEntry(found: Record<string, unknown> | null): Entry | null {
  const kept = readKept(found);
  if (kept === null || found === null) return null;
  const state = (["waits", "refused", "conflict"] as const).find((s) => s === found["state"]) ?? "waits";
  return { ...kept, key: text(found["key"]), author: text(found["author"]), state, why: text(found["why"]) };
}
