/** The server over HTTP. Every call either answers or throws one of the errors below. */

import { say } from "./texts";
import { WireError, frame, given, list, measured, object, points, quality, revision, rows, suggestion, task, text, number } from "./wire";
import type { Part } from "./tiles";
import type { Triple } from "./volume";
import type { CaseRow, Frame, Measured, Point, Quality, Revision, Suggestion, Task } from "./wire";

const CONTRACT = "1"; // as the server's guard has it
const WHO = "auth/token/valid"; // asks who has logged in, whosever page this is
const ANSWER_MS = 60_000; // that an answer may take
const SAVE_MS = 15_000; // that a save may take before it is sent again

/** The server does not answer, or not now: what was sent may be sent again. */
export class Unreachable extends Error {}
/** The server answers and cannot do it now, for a reason that it gives. */
export class Busy extends Unreachable {}
/** Nobody is logged in, or the login has ended. */
export class LoggedOut extends Error {}
/** The server says no, with its reason. */
export class Refused extends Error {}
/** Somebody else has saved a newer revision: theirs. */
export class ConflictError extends Error {
  constructor(
    message: string,
    readonly current: Revision,
  ) {
    super(message);
  }
}

export interface Who {
  readonly name: string; // empty where the server asks for no token
  readonly roles: readonly string[];
}

export interface Submission {
  readonly image: string;
  readonly points: readonly Point[];
  readonly baseRevision: number;
  readonly baseHash: string; // of that revision; empty where it is not known
  readonly author: string;
  readonly key: string;
  readonly repeat: boolean;
  readonly pixels: string;
}

/** What somebody says of a point on the page of the labels' quality: it is right where it is, or that is taken back. */
export interface Answer {
  readonly image: string;
  readonly landmark: string;
  readonly revision: number; // that was looked at
  readonly author: string;
  readonly isRight: boolean;
  readonly key: string;
  readonly landmarks: readonly unknown[]; // empty until they are known: the same is sent again under the same key
  readonly pixels: string;
}

/** What the server keeps of a case that was not submitted; `saved`: when it came. */
export interface Draft {
  readonly points: readonly Point[];
  readonly baseRevision: number;
  readonly pixels: string;
  readonly saved: string;
}

export class Api {
  studyId = ""; // once it is known, nothing is said to another study at the same address
  person: string | null = null; // once it is known, nothing is said in the name of whoever logs in later in another tab

  /** `root` is the address of the study: the page's own, less `annotate/`. */
  constructor(readonly root: URL) {}

  async who(): Promise<Who> {
    const answer = object(await this.json("GET", WHO), "the answer");
    return { name: text(answer["name"]), roles: list(answer["roles"], "roles").map(text) };
  }

  /** Whether people log in with a name and a password, which another server knows. */
  async hasAccounts(): Promise<boolean> {
    return text(object(await this.json("GET", "auth/"), "the answer")["realm"] ?? "") !== "";
  }

  /** What stands for a name and a password. */
  async tokenOf(name: string, password: string): Promise<string> {
    const answer = await this.json("POST", "auth/token", new URLSearchParams({ username: name, password }));
    return text(object(answer, "the answer")["access_token"]);
  }

  async login(token: string): Promise<void> {
    await this.json("POST", "annotate/login", { token });
  }

  async logout(): Promise<void> {
    await this.json("DELETE", "annotate/login");
  }

  /** An id of the study, which is the same for ever. */
  async study(): Promise<string> {
    this.studyId = text(object(await this.json("GET", "landmarks/study"), "the answer")["id"]);
    return this.studyId;
  }

  async task(): Promise<Task> {
    return task(await this.json("GET", "landmarks/task"));
  }

  async info(): Promise<{ models: string[]; strategies: Record<string, string>; training: Record<string, unknown> }> {
    const answer = object(await this.json("GET", "info/"), "the answer");
    const strategies = object(answer["strategies"], "strategies");
    return {
      models: Object.keys(object(answer["models"], "models")),
      strategies: Object.fromEntries(
        Object.entries(strategies).map(([name, about]) => [name, text(object(about, "a strategy")["description"])]),
      ),
      training: object(answer["train_stats"] ?? {}, "the trainings"),
    };
  }

  async cases(): Promise<CaseRow[]> {
    const answer = object(await this.json("GET", "landmarks/images"), "the answer");
    return list(answer["images"], "the images").map((one) => {
      const row = object(one, "a case");
      return {
        image: text(row["image"]),
        revision: number(row["revision"]),
        author: text(row["author"]),
        labelled: row["labelled"] === true,
      };
    });
  }

  async nextCase(strategy: string, clientId: string): Promise<{ image: string; reason: string; repeat: boolean } | null> {
    const path = `activelearning/${encodeURIComponent(strategy)}`;
    const answer = object(await this.json("POST", path, { client_id: clientId }), "the answer");
    const image = text(answer["id"]);
    return image ? { image, reason: text(answer["reason"]), repeat: answer["repeat"] === true } : null;
  }

  async newest(image: string, of: Task): Promise<Revision> {
    return revision(await this.json("GET", this.caseAt(image)), of);
  }

  async history(image: string, of: Task): Promise<Revision[]> {
    const answer = object(await this.json("GET", this.caseAt(image, "history")), "the answer");
    return list(answer["revisions"], "the revisions").map((one) => revision(one, of));
  }

  async frame(image: string): Promise<Frame> {
    return frame(await this.json("GET", this.caseAt(image, "frame")));
  }

  /** All of a 2D image, or a part of it, with the step that it was averaged by. */
  async picture(image: string, low: number, high: number, part: Part | null, signal: AbortSignal | null): Promise<{ blob: Blob; step: number }> {
    const which = part && `&first=${part.first.join(",")}&size=${part.size.join(",")}&step=${part.step}`;
    const where = `${this.caseAt(image, "picture")}?low=${low}&high=${high}${which ?? ""}`;
    const answer = await this.fetch("GET", where, undefined, ANSWER_MS, false, signal);
    return { blob: await answer.blob(), step: Number(answer.headers.get("landmarklabel-step")) || 1 };
  }

  /** Samples of a volume, x fastest. */
  async voxels(image: string, first: Triple, size: Triple, step: Triple): Promise<Int16Array> {
    const where = `${this.caseAt(image, "voxels")}?first=${first.join(",")}&size=${size.join(",")}&step=${step.join(",")}`;
    const answer = await this.fetch("GET", where, undefined, ANSWER_MS);
    return new Int16Array(await answer.arrayBuffer()); // every browser's computer is little-endian, as the answer is
  }

  async predict(model: string, image: string, all: readonly Point[], of: Task): Promise<Suggestion> {
    const form = new URLSearchParams({ params: JSON.stringify(given(all)) });
    const where = `infer/${encodeURIComponent(model)}?image=${encodeURIComponent(image)}&output=json`;
    return suggestion(await this.json("POST", where, form), of);
  }

  async update(model: string, image: string, all: readonly Point[], of: Task): Promise<Suggestion> {
    return suggestion(await this.json("POST", this.caseAt(image, "update"), { ...given(all), model }), of);
  }

  /** What points measure; of those that the server proposed it knows how far off they may be. */
  async measure(model: string, image: string, all: readonly Point[], of: Task): Promise<Measured[]> {
    const told = rows(all).map((row, i) => ({ ...row, ...(all[i]?.state === "predicted" && all[i]?.covariance ? { covariance: all[i]?.covariance } : {}) }));
    return measured(await this.json("POST", this.caseAt(image, "measurements"), { landmarks: told, ...(model ? { model } : {}) }), of);
  }

  /** The new revision's number and hash. Throws ConflictError with the other version. */
  async save(what: Submission, of: Task): Promise<Pick<Revision, "revision" | "hash">> {
    const body = {
      landmarks: rows(what.points),
      base_revision: what.baseRevision,
      author: what.author,
      key: what.key,
      repeat: what.repeat,
      ...(what.pixels ? { pixels: what.pixels } : {}),
    };
    const condition = what.baseHash ? { "If-Match": `"${what.baseHash}"` } : {};
    const answer = await this.fetch("PUT", this.caseAt(what.image), body, SAVE_MS, true, null, condition);
    const content = object(await parsed(answer), "the answer");
    if (answer.status !== 409) return { revision: number(content["revision"]), hash: text(content["sha256"]) };
    if (content["current"] === undefined) throw new Refused(text(content["detail"]));
    throw new ConflictError(text(content["detail"]), revision(content["current"], of));
  }

  async draft(image: string, author: string, repeat: boolean, of: Task): Promise<Draft | null> {
    const where = `${this.caseAt(image, "draft")}?author=${encodeURIComponent(author)}&repeat=${repeat}`;
    const found = object(await this.json("GET", where), "the answer")["draft"];
    if (found === null || found === undefined) return null;
    const content = object(found, "the draft");
    return {
      points: points(content["landmarks"], of),
      baseRevision: number(content["base_revision"]),
      pixels: text(content["pixels"]),
      saved: text(content["saved"]),
    };
  }

  /** When the server had it. */
  async keepDraft(what: Omit<Submission, "key" | "baseHash">, edits: number): Promise<string> {
    const answer = await this.json("PUT", this.caseAt(what.image, "draft"), {
      landmarks: rows(what.points),
      base_revision: what.baseRevision,
      author: what.author,
      repeat: what.repeat,
      pixels: what.pixels,
      edits,
    });
    return text(object(answer, "the draft")["saved"]);
  }

  async dropDraft(image: string, author: string, repeat: boolean): Promise<void> {
    await this.json("DELETE", `${this.caseAt(image, "draft")}?author=${encodeURIComponent(author)}&repeat=${repeat}`);
  }

  /** A page of the points by how far they lie from where the others expect them. */
  async quality(page: number, alsoChecked: boolean): Promise<Quality> {
    return quality(await this.json("GET", `landmarks/quality?page=${page}&also_checked=${alsoChecked}`));
  }

  /** What an answer says right: the points as they are now, under which it is sent however often. Throws Refused. */
  async labelOf(image: string): Promise<Pick<Answer, "landmarks" | "pixels">> {
    const newest = object(await this.json("GET", this.caseAt(image)), "the answer");
    if (newest["changed"] === true) throw new Refused(say("otherImage"));
    return { landmarks: list(newest["landmarks"], "the landmarks"), pixels: text(newest["pixels"]) };
  }

  /** Somebody has looked at a point again. Throws Refused where the case was changed since it was listed. */
  async answer(what: Answer): Promise<void> {
    const said = { [what.isRight ? "checked" : "unchecked"]: [what.landmark] };
    const body = { landmarks: what.landmarks, base_revision: what.revision, author: what.author, key: what.key, ...said };
    const saved = await this.fetch("PUT", this.caseAt(what.image), what.pixels ? { ...body, pixels: what.pixels } : body, SAVE_MS, true);
    if (saved.status === 409) throw new Refused(say("changedSince", { case: what.image }));
  }

  async train(model: string, minutes: number): Promise<void> {
    await this.json("POST", `train/${encodeURIComponent(model)}`, { minutes });
  }

  async stopTraining(): Promise<void> {
    await this.json("DELETE", "train/");
  }

  private caseAt(image: string, part = ""): string {
    return `landmarks/images/${encodeURIComponent(image)}${part ? `/${part}` : ""}`;
  }

  private async json(method: string, path: string, body?: object): Promise<unknown> {
    return parsed(await this.fetch(method, path, body, ANSWER_MS));
  }

  private async fetch(method: string, path: string, body: object | undefined, ms: number, mayConflict = false, signal: AbortSignal | null = null, more = {}): Promise<Response> {
    const headers: Record<string, string> = { "landmarklabel-contract": CONTRACT, ...more };
    if (this.studyId) headers["landmarklabel-study"] = this.studyId;
    if (this.person !== null && path !== WHO) headers["landmarklabel-person"] = encodeURIComponent(this.person);
    const isForm = body instanceof URLSearchParams;
    if (body !== undefined && !isForm) headers["content-type"] = "application/json";
    let answer: Response;
    try {
      answer = await fetch(new URL(path, this.root), {
        method,
        headers,
        body: body === undefined ? null : isForm ? body : JSON.stringify(body),
        credentials: "same-origin",
        redirect: "error",
        cache: "no-store",
        signal: signal === null ? AbortSignal.timeout(ms) : AbortSignal.any([AbortSignal.timeout(ms), signal]),
      });
    } catch (error) {
      throw new Unreachable(error instanceof Error ? error.message : String(error));
    }
    if (answer.ok || (mayConflict && answer.status === 409)) return answer;
    const why = await reason(answer);
    if (answer.status === 421) throw new Busy(say("otherStudy"));
    if (answer.status === 401) throw new LoggedOut(why);
    if (answer.status >= 500 || answer.status === 408 || answer.status === 429) throw new Busy(why);
    throw new Refused(why);
  }
}

async function parsed(answer: Response): Promise<unknown> {
  try {
    return await answer.json();
  } catch {
    throw new Unreachable("the answer is no JSON: is another program at this address, or a page to log in?");
  }
}

async function reason(answer: Response): Promise<string> {
  try {
    return text(object(await answer.json(), "the answer")["detail"]) || `${answer.status}`;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

export { WireError };
