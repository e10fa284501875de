/** What the page's buttons do: the open case, its delivery, the server. No DOM: `changed` tells whoever shows it. */

import { Annotation, differences, type Kept, type What } from "./annotation";
import { Busy, ConflictError, LoggedOut, Refused, Unreachable, type Api, type Who } from "./api";
import { newKey, StorageFault, type Entry, type Storage } from "./storage";
import { say } from "./texts";
import { isByPerson, type CaseRow, type Frame, type Point, type Position, type Revision, type Task } from "./wire";

const DRAFT_MS = 3_000; // after an edit, until the server gets a draft of it
const AGAIN_MS = 5_000; // until what waits is sent again
const ALIVE_MS = 2_000; // between two looks for a server that does not answer

export type ServerState = "connected" | "away" | "logged out";

export interface Unsent {
  readonly image: string;
  readonly repeat: boolean;
  readonly why: string;
  readonly entry: Entry | null; // null where the case was changed and not submitted
}

export class Work {
  who: Who = { name: "", roles: [] };
  server: ServerState = "connected";
  open: Annotation | null = null;
  frame: Frame | null = null;
  picture: Blob | null = null;
  conflict: Revision | null = null;
  history: readonly Revision[] = [];
  cases: readonly CaseRow[] = [];
  training: Record<string, unknown> = {};
  message = "";
  trouble = ""; // what stays until it is mended
  models: readonly string[] = [];
  strategies: Record<string, string> = {};
  model = "";
  isActive = true; // false while another tab has taken over
  busy = 0;

  private readonly clientId: string;
  private following: Promise<void> | null = null;
  private followAgain = false;
  private placed = ""; // what the others follow
  private delivering: Promise<void> | null = null;
  private drafting: Promise<void> = Promise.resolve(); // one draft after the other, and a submission after them
  private draftTimer: ReturnType<typeof setTimeout> | undefined;
  private submitted: { open: Annotation; edits: number } | null = null; // until it has arrived or met something
  private opening = 0; // so that a case that was asked for earlier does not replace a later one
  private asked = 0; // so that an old answer does not undo a newer change
  private goneText = ""; // what the case that opens has and the task has not
  private lastSaved = ""; // said once more when the next case opens
  private advanceBy: string | null = null; // strategy by which the next case opens after this delivery
  private thenNext: { key: string; strategy: string } | null = null;

  constructor(
    readonly api: Api,
    readonly storage: Storage,
    readonly task: Task,
    readonly changed: () => void,
  ) {
    this.clientId = storage.setting("client") || newKey();
    storage.set("client", this.clientId);
  }

  get author(): string {
    return this.who.name || this.storage.setting("author");
  }

  /** Whose drafts these are: the server knows whoever has logged in; without a login they are this browser's. */
  private get draftsOf(): string {
    return this.who.name ? "" : this.clientId;
  }

  /** Begin: what the server offers, what waits is sent, the case that was open opens again. */
  async start(who: Who): Promise<void> {
    this.who = who;
    this.server = "connected";
    await this.doing(async () => {
      const info = await this.api.info();
      this.models = info.models;
      this.strategies = info.strategies;
      this.training = info.training;
      this.model ||= info.models[0] ?? "";
      await this.listCases();
    });
    await this.deliver();
    const opened = this.storage.opened();
    if (this.open === null && opened !== null) await this.openCase(opened.image, opened.repeat);
    else if (this.open !== null && this.picture === null) await this.fetchImage(this.open);
  }

  /** Called every second or so: sends again what waits, and looks for a server that was away. */
  private lastTry = 0;
  async tick(now: number = Date.now()): Promise<void> {
    if (!this.isActive || this.server === "logged out") return;
    if (this.server === "away") {
      if (now - this.lastTry < ALIVE_MS) return;
      this.lastTry = now;
      await this.doing(async () => {
        await this.api.who();
        this.tell(say("back"));
      });
      if (this.isConnected()) {
        if (this.open !== null) void this.sendDraft(this.open);
        if (this.open !== null && this.picture === null) await this.fetchImage(this.open);
        await this.deliver();
      }
    } else if (this.waiting().length && now - this.lastTry >= AGAIN_MS) {
      this.lastTry = now;
      await this.deliver();
    }
  }

  private isConnected(): boolean {
    return this.server === "connected";
  }

  // --- cases -----------------------------------------------------------------------------------------------------------

  async listCases(): Promise<void> {
    this.cases = await this.api.cases();
    this.changed();
  }

  async nextCase(strategy: string): Promise<void> {
    const opening = this.opening;
    await this.doing(async () => {
      const chosen = await this.api.nextCase(strategy, this.clientId);
      if (opening !== this.opening) return; // the person has opened another case meanwhile
      if (chosen === null) {
        this.tellAfterSave(say("allDone"));
        await this.listCases();
        return;
      }
      await this.openCase(chosen.image, chosen.repeat, chosen.reason);
    });
  }

  /** A case as the server has it, or as it was left here where the server does not have that yet. */
  async openCase(image: string, repeat = false, reason = ""): Promise<void> {
    const opening = ++this.opening;
    await this.doing(async () => {
      const history = repeat ? [] : await this.api.history(image, this.task); // of a second reading, nobody is shown the first
      const newest = history.at(-1);
      const revision = newest?.revision ?? 0;
      const [annotation, why] = await this.asLeft(image, repeat, reason, newest);
      if (opening !== this.opening) return;
      this.leave();
      this.asked++;
      this.open = annotation;
      this.history = history;
      this.conflict = newest !== undefined && revision > annotation.baseRevision && annotation.isUnsent ? newest : null;
      this.frame = null;
      this.picture = null;
      this.trouble = this.goneText;
      this.submitted = null;
      this.tellAfterSave(why && why !== reason ? `${image}: ${why}` : "");
      this.keep();
      this.noteOpen(annotation);
      await this.fetchImage(annotation);
    });
    void this.listCases().catch(() => undefined);
  }

  private noteOpen(annotation: Annotation): void {
    try {
      this.storage.noteOpen(annotation.image, annotation.repeat);
    } catch (error) {
      if (!(error instanceof StorageFault)) throw error;
    }
  }

  /** What happened next, behind what was saved just before. */
  private tellAfterSave(message: string): void {
    this.tell([this.lastSaved, message].filter(Boolean).join(". "));
    this.lastSaved = "";
  }

  private async asLeft(image: string, repeat: boolean, reason: string, newest: Revision | undefined): Promise<[Annotation, string]> {
    const kept = this.storage.loadCase(image, repeat);
    this.goneText = "";
    if (kept !== null && kept.edits > kept.delivered) {
      const gone = Annotation.gone(kept, this.task);
      if (gone.length) {
        this.storage.copyCase(kept);
        this.goneText = say("gone", { names: gone.join(", ") });
      }
      return [Annotation.of(kept, this.task), say("yourChanges")];
    }
    const waits = this.storage.entries().filter((e) => e.image === image && e.repeat === repeat).at(-1);
    if (waits !== undefined) {
      const asSent: Kept = { ...waits, reason, delivered: waits.edits };
      return [Annotation.of(asSent, this.task), say("asSubmitted")];
    }
    const draft = await this.api.draft(image, this.draftsOf, repeat, this.task).catch((error: unknown) => {
      if (error instanceof Refused) return null; // a role that may have none
      throw error; // else the next edit would write over a draft that nobody has seen
    });
    if (draft !== null) {
      const made = new Annotation(this.task, image, draft.points, draft.baseRevision, reason, repeat);
      made.edits = made.drafted = 1;
      made.pixels = draft.pixels;
      return [made, say("yourDraft")];
    }
    return [new Annotation(this.task, image, newest?.points ?? null, newest?.revision ?? 0, reason, repeat), reason];
  }

  private async fetchImage(annotation: Annotation): Promise<void> {
    if (this.task.dims !== 2) {
      this.trouble = say("volumesLater");
      return;
    }
    try {
      const frame = await this.api.frame(annotation.image); // before the image: one exchanged in between is refused later
      const picture = await this.api.picture(annotation.image, ...frame.window);
      if (this.open !== annotation) return;
      if (frame.changed || (frame.pixels && annotation.pixels && frame.pixels !== annotation.pixels)) this.trouble = say("otherImage");
      annotation.pixels ||= frame.pixels; // of points that were placed on another image this is said until they are submitted
      this.frame = frame;
      this.picture = picture;
      this.keep();
    } catch (error) {
      this.trouble = say("noImage", { why: error instanceof Error ? error.message : String(error) });
      throw error;
    } finally {
      this.changed();
    }
  }

  /** Another case opens: of this one, only what the server does not have is needed. */
  private leave(): void {
    const open = this.open;
    if (open === null || !this.isActive) return;
    void this.sendDraft(open);
    if (!open.isUnsent) this.storage.dropCase(open.image, open.repeat);
  }

  // --- points ----------------------------------------------------------------------------------------------------------

  async predict(): Promise<void> {
    const open = this.open;
    if (open === null) return;
    if (!this.model) {
      this.tell(say("noModel"));
      return;
    }
    const asked = ++this.asked;
    await this.doing(async () => {
      const answer = await this.api.predict(this.model, open.image, open.points, this.task);
      if (this.open !== open || asked !== this.asked) return;
      open.propose(answer.points, answer.next);
      this.edited(say(answer.origin === "model" ? "predicted" : answer.origin === "template" ? "byTemplate" : "nothingKnown"));
    });
  }

  /** A person placed or moved a point; the others follow. False where it cannot be there. */
  place(name: string, position: Position, isFinal = true): boolean {
    const open = this.open;
    if (open === null || this.isLocked(name)) return false;
    if (this.frame === null) {
      this.tell(say("loadingImage"));
      return false;
    }
    if (!this.isInside(position)) {
      if (isFinal) this.takeMoveBack();
      this.tell(say("outside", { name }));
      return false;
    }
    open.place(name, position, isFinal);
    if (isFinal) this.edited(say("placed", { name }));
    else this.changed();
    void this.follow(name);
    return true;
  }

  /** A drag ended where the point cannot be, or was broken off. */
  takeMoveBack(): void {
    this.asked++; // the others follow no move that never was
    this.open?.takeMoveBack();
    this.edited(this.message);
  }

  isInside(position: Position): boolean {
    if (this.frame === null) return true;
    const index = this.frame.toIndex.map((row) => row.reduce((sum, f, i) => sum + f * (position[i] ?? (i === row.length - 1 ? 1 : 0)), 0));
    return index.every((v, axis) => v >= -0.5 && v <= (this.frame?.size[axis] ?? 0) - 0.5);
  }

  /** Let the other points move. One question is under way at a time; the newest state is asked about last. */
  private async follow(name = ""): Promise<void> {
    this.asked++;
    this.placed = name;
    if (this.following !== null) {
      this.followAgain = true;
      return;
    }
    do {
      this.followAgain = false;
      this.following = this.askToFollow();
      await this.following;
    } while (this.followAgain);
    this.following = null;
  }

  private async askToFollow(): Promise<void> {
    const open = this.open;
    if (open === null || !this.model || this.server !== "connected") return;
    const [asked, name] = [this.asked, this.placed];
    try {
      const answer = await this.api.update(this.model, open.image, open.points, this.task);
      if (this.open !== open || asked !== this.asked) return;
      const n = open.follow(answer.points, answer.next);
      this.edited(n && name ? say("moved", { name, n }) : this.message);
    } catch (error) {
      this.failed(error);
    }
  }

  accept(name: string): boolean {
    const open = this.open;
    if (open === null) return false;
    const { position } = open.point(name);
    if (position !== null && !this.isInside(position)) {
      this.tell(outsideText([name]));
      return false;
    }
    const done = open.accept(name);
    this.edited(say(done ? "accepted" : "noPosition", { name }));
    return done;
  }

  acceptAll(): void {
    const open = this.open;
    if (open === null) return;
    const outside = open.points.filter((p) => p.position !== null && !this.isInside(p.position)).map((p) => p.name);
    open.acceptAll(outside);
    this.edited(outside.length ? outsideText(outside) : say("acceptedAll"));
  }

  markAbsent(name: string): boolean {
    if (this.open === null || this.isLocked(name)) return false;
    this.open.markAbsent(name);
    this.edited(say("absent", { name }));
    void this.follow();
    return true;
  }

  unlock(name: string): void {
    this.open?.unlock(name);
    this.edited(say("unlocked", { name }));
  }

  private isLocked(name: string): boolean {
    const state = this.open?.point(name).state;
    if (state !== "accepted" && state !== "absent") return false;
    this.tell(say("locked", { name, state: say(`state_${state}`) }));
    return true;
  }

  undo(): void {
    this.asked++; // an answer still on its way belongs to what is undone
    const step = this.open?.undo() ?? null;
    this.edited(step ? say("undone", { what: described(step) }) : say("nothingToUndo"));
  }

  redo(): void {
    this.asked++;
    const step = this.open?.redo() ?? null;
    this.edited(step ? say("redone", { what: described(step) }) : say("nothingToRedo"));
  }

  restore(revision: Revision): void {
    this.asked++;
    this.open?.replaceAll(revision.points, "restore");
    this.edited(say("restored", { n: revision.revision, who: revision.author || say("somebody") }));
  }

  private edited(message: string): void {
    this.keep();
    this.tell(message);
    clearTimeout(this.draftTimer);
    const { open } = this;
    if (open !== null) this.draftTimer = setTimeout(() => void this.sendDraft(open), DRAFT_MS);
  }

  // --- keeping and sending ----------------------------------------------------------------------------------------------

  private keep(): void {
    const open = this.open;
    if (open !== null) this.keepSafely(() => this.storage.keepCase(open.kept()));
  }

  /** Write into the browser, unless another tab works on; a full one is said. */
  private keepSafely(write: () => void): void {
    if (!this.isActive) return;
    try {
      write();
    } catch (error) {
      if (!(error instanceof StorageFault)) throw error;
      this.trouble = say("cannotKeep", { why: error.message });
    }
  }

  private sendDraft(of: Annotation): Promise<void> {
    this.drafting = this.drafting.then(() => this.draft(of));
    return this.drafting;
  }

  private async draft(of: Annotation): Promise<void> {
    const { image, points, baseRevision, repeat, pixels, edits } = of;
    const isSubmitted = this.waiting().some((e) => e.image === image && e.repeat === repeat && e.edits >= edits);
    if (!this.isActive || !of.isUnsent || edits === of.drafted || isSubmitted || this.server !== "connected") return;
    try {
      await this.api.keepDraft({ image, points, baseRevision, author: this.draftsOf, repeat, pixels }, edits);
      of.drafted = edits;
    } catch (error) {
      this.failed(error);
    }
  }

  private async dropDraft(image: string, repeat: boolean): Promise<void> {
    await this.api.dropDraft(image, this.draftsOf, repeat).catch(() => undefined); // one that stays is told by its base revision
  }

  /** Keep the case for delivery, and send it. */
  async submit(strategy: string): Promise<void> {
    const open = this.open;
    if (open === null) return;
    if (this.conflict !== null) {
      this.tell(say("conflictFirst"));
      return;
    }
    if (!this.isActive || (this.submitted?.open === open && this.submitted.edits === open.edits)) return; // pressed twice
    const { image, points, baseRevision, repeat, edits } = open;
    const pixels = this.frame?.pixels ?? open.pixels;
    const outside = points.filter((p) => isByPerson(p) && p.position !== null && !this.isInside(p.position)).map((p) => p.name);
    if (outside.length) {
      this.tell(outsideText(outside));
      return;
    }
    const entry: Entry = { image, points, baseRevision, repeat, pixels, edits, author: this.author, key: newKey(), state: "waits", why: "" };
    this.keepSafely(() => this.storage.put(entry));
    clearTimeout(this.draftTimer);
    this.submitted = { open, edits };
    this.thenNext = { key: entry.key, strategy };
    this.tell(say("sent", { case: image }));
    await this.deliver(entry);
  }

  waiting(): Entry[] {
    return this.storage.entries().filter((e) => e.state === "waits");
  }

  /** All that the server does not have, but for the open case's own changes. */
  unsent(): Unsent[] {
    const entries = this.storage.entries();
    const of = (e: Entry): Unsent => ({ image: e.image, repeat: e.repeat, why: e.why || say("waits"), entry: e });
    const changed = this.storage
      .unsent()
      .filter((k) => !(this.open?.image === k.image && this.open.repeat === k.repeat))
      .filter((k) => !entries.some((e) => e.image === k.image && e.repeat === k.repeat));
    return [...entries.map(of), ...changed.map((k) => ({ image: k.image, repeat: k.repeat, why: say("changedOnly"), entry: null }))];
  }

  /** Send what waits, oldest first; one delivery at a time. `extra` is sent even where the browser could not keep it. */
  async deliver(extra: Entry | null = null): Promise<void> {
    while (this.delivering !== null) await this.delivering;
    this.delivering = this.sendAll(extra);
    try {
      await this.delivering;
    } finally {
      this.delivering = null;
      this.changed();
    }
    const strategy = this.advanceBy;
    this.advanceBy = null;
    if (strategy !== null) await this.nextCase(strategy);
  }

  private async sendAll(extra: Entry | null): Promise<void> {
    const waiting = this.waiting();
    if (extra !== null && !waiting.some((e) => e.key === extra.key)) waiting.push(extra);
    for (const entry of waiting) {
      if (!this.isActive || this.server === "logged out") return;
      if (!(await this.send(entry))) return;
    }
  }

  /** False where the server cannot be asked now: it and the rest wait. */
  private async send(entry: Entry): Promise<boolean> {
    this.busy++;
    this.changed();
    try {
      await this.drafting; // one that came later would outlive what is submitted now
      const revision = await this.api.save({ ...entry, baseRevision: this.baseOf(entry) }, this.task);
      this.server = "connected";
      this.arrived(entry, revision);
      return true;
    } catch (error) {
      if (error instanceof ConflictError) this.meet(entry, error.current);
      else if (error instanceof Refused) this.refuse(entry, error.message);
      else {
        this.failed(error);
        return false;
      }
      return true;
    } finally {
      this.busy--;
      this.changed();
    }
  }

  /** What was submitted on top of one that has arrived since starts from its revision. */
  private baseOf(entry: Entry): number {
    const kept = this.storage.loadCase(entry.image, entry.repeat);
    return Math.max(entry.baseRevision, kept !== null && kept.delivered > 0 && kept.delivered < entry.edits ? kept.baseRevision : 0);
  }

  private arrived(entry: Entry, revision: number): void {
    const isOpen = this.isOpen(entry);
    const annotation = isOpen ? this.open : this.kept(entry);
    if (annotation !== null) {
      annotation.acknowledged(entry.edits, revision);
      annotation.pixels = entry.pixels;
      if (annotation.isUnsent || isOpen) this.keepSafely(() => this.storage.keepCase(annotation.kept()));
      else this.storage.dropCase(entry.image, entry.repeat);
    }
    for (const other of this.storage.entries()) // what was refused before counts no more
      if (other.image === entry.image && other.repeat === entry.repeat && other.key <= entry.key) this.storage.forget(other.key);
    if (!this.who.name) void this.dropDraft(entry.image, entry.repeat); // of whoever has logged in the server knows
    this.lastSaved = say("saved", { case: entry.image, n: revision });
    this.tell(this.lastSaved);
    if (isOpen && this.conflict !== null && this.conflict.revision <= revision) this.conflict = null;
    if (this.thenNext?.key === entry.key) {
      this.advanceBy = isOpen && this.open?.isUnsent === false ? this.thenNext.strategy : null;
      this.thenNext = null;
    }
  }

  private kept(entry: Entry): Annotation | null {
    const kept = this.storage.loadCase(entry.image, entry.repeat);
    return kept === null ? null : Annotation.of(kept, this.task);
  }

  private isOpen(what: { image: string; repeat: boolean }): boolean {
    return this.open !== null && this.open.image === what.image && this.open.repeat === what.repeat;
  }

  private meet(entry: Entry, current: Revision): void {
    const who = current.author || say("somebody");
    const why = say("conflict", { who, n: current.revision, k: differences(entry.points, current.points).length });
    if (this.isOpen(entry)) {
      this.conflict = current;
      this.thenNext = this.submitted = null;
    }
    this.keepSafely(() => this.storage.put({ ...entry, state: "conflict", why }));
  }

  private refuse(entry: Entry, why: string): void {
    this.trouble = say("refused", { case: entry.image, why });
    this.thenNext = this.submitted = null;
    this.keepSafely(() => this.storage.put({ ...entry, state: "refused", why }));
  }

  // --- two versions of one case ------------------------------------------------------------------------------------------

  differing(): readonly Point[] {
    return this.open !== null && this.conflict !== null ? differences(this.open.points, this.conflict.points) : [];
  }

  takeTheirs(name: string | null): void {
    const { open, conflict } = this;
    if (open === null || conflict === null) return;
    this.asked++;
    if (name !== null) {
      open.replaceAll(conflict.points.filter((p) => p.name === name), "take");
      this.edited(say("tookPoint", { name }));
      return;
    }
    open.replaceAll(conflict.points, "take");
    open.acknowledged(open.edits, conflict.revision);
    void this.dropDraft(open.image, open.repeat);
    this.settle();
    this.edited(say("tookAll", { n: conflict.revision }));
  }

  async submitMine(strategy: string): Promise<void> {
    const { open, conflict } = this;
    if (open === null || conflict === null) return;
    open.baseRevision = conflict.revision;
    this.settle();
    await this.submit(strategy);
  }

  private settle(): void {
    this.conflict = null;
    for (const entry of this.storage.entries()) if (entry.state === "conflict" && this.isOpen(entry)) this.storage.forget(entry.key);
  }

  // --- what the server does not have --------------------------------------------------------------------------------------

  async sendAgain(what: Unsent): Promise<void> {
    if (what.entry === null) return this.openCase(what.image, what.repeat);
    this.storage.put({ ...what.entry, state: "waits", why: "" });
    this.trouble = "";
    await this.deliver();
  }

  async discard(what: Unsent): Promise<void> {
    const kept = this.storage.loadCase(what.image, what.repeat);
    if (what.entry !== null) this.storage.forget(what.entry.key);
    // The case's own state goes too, unless it is open or holds more than was submitted.
    if (what.entry === null || (!this.isOpen(what) && kept !== null && kept.edits <= what.entry.edits))
      this.storage.dropCase(what.image, what.repeat);
    this.trouble = "";
    this.tell(say("discarded", { case: what.image }));
    await this.dropDraft(what.image, what.repeat);
  }

  // --- training --------------------------------------------------------------------------------------------------------------

  async train(minutes: number): Promise<void> {
    await this.doing(async () => {
      await this.api.train(this.model, minutes);
      await this.lookAtTraining();
    });
  }

  async stopTraining(): Promise<void> {
    await this.doing(async () => {
      await this.api.stopTraining();
      await this.lookAtTraining();
    });
  }

  async lookAtTraining(): Promise<void> {
    this.training = (await this.api.info()).training;
    this.changed();
  }

  // --- the rest --------------------------------------------------------------------------------------------------------------

  /** Another tab works on: nothing is written from here any more. */
  deactivate(): void {
    this.isActive = false;
    clearTimeout(this.draftTimer);
    this.changed();
  }

  tell(message: string): void {
    this.message = message;
    this.changed();
  }

  private async doing(job: () => Promise<void>): Promise<void> {
    this.busy++;
    this.changed();
    try {
      await job();
      if (this.server === "away") this.server = "connected";
    } catch (error) {
      this.failed(error);
    } finally {
      this.busy--;
      this.changed();
    }
  }

  private failed(error: unknown): void {
    if (error instanceof LoggedOut) this.server = "logged out";
    else if (error instanceof Unreachable) {
      this.server = error instanceof Busy ? this.server : "away";
      this.message = error instanceof Busy ? error.message : say("away");
    } else if (error instanceof Error) this.message = error instanceof Refused ? error.message : say("unexpected", { why: error.message });
    this.changed();
  }
}

const SHOWN_NAMES = 3; // of those outside of the image

function outsideText(names: readonly string[]): string {
  return say("outsideAll", { names: names.slice(0, SHOWN_NAMES).join(", ") + (names.length > SHOWN_NAMES ? " …" : "") });
}

const described = (step: { what: What; name: string }): string => say(`what_${step.what}`, { name: step.name });
