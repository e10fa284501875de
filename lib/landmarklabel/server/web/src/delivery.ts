/** What the server is to have: the open case kept and sent, two versions of it, and what has not arrived.
 *
 * Nothing leaves this browser before the server has acknowledged it.
 */

import { Annotation, differences, isOf } from "./annotation";
import { Busy, ConflictError, LoggedOut, Refused, Unreachable, type Api, type Who } from "./api";
import { newKey, StorageFault, type Entry, type Storage } from "./storage";
import { awayText, conflictText, outsideText, savedText, say } from "./texts";
import { isByPerson, type Frame, type Point, type Position, type Revision, type Task } from "./wire";

const DRAFT_MS = 3_000; // after an edit, until the server gets a draft of it

export type ServerState = "connected" | "away" | "logged out";

export interface Unsent {
  readonly image: string;
  readonly repeat: boolean;
  readonly why: string;
  readonly entry: Entry | null; // null where the case was changed and not submitted
}

export abstract class Delivery {
  who: Who = { name: "", roles: [] };
  server: ServerState = "connected";
  open: Annotation | null = null;
  frame: Frame | null = null;
  conflict: Revision | null = null;
  message = "";
  trouble = ""; // what stays until it is mended
  isActive = true; // false while another tab has taken over
  busy = 0;

  protected readonly clientId: string;
  asked = 0; // so that an old answer does not undo a newer change
  protected arrivals = 0; // of submissions
  protected submitted: { open: Annotation; edits: number } | null = null; // until it has arrived or met something
  protected lastSaved = ""; // said once more when the next case opens
  private typedAuthor = "";
  private delivering: Promise<void> | null = null;
  private drafting: Promise<void> = Promise.resolve(); // one draft after the other, and a submission after them
  private draftTimer: ReturnType<typeof setTimeout> | undefined;
  private sending = ""; // the key of what is on its way
  private advanceBy: string | null = null; // strategy by which the next case opens after this delivery
  private thenNext: { key: string; strategy: string } | null = null;

  constructor(
    readonly api: Api,
    readonly storage: Storage,
    readonly task: Task,
    readonly changed: () => void,
  ) {
    this.clientId = storage.setting("client") || newKey();
    this.keepSetting("client", this.clientId);
  }

  abstract nextCase(strategy: string): Promise<void>;
  abstract openCase(image: string, repeat?: boolean): Promise<void>;

  get author(): string {
    return this.who.name || this.typedAuthor || this.storage.setting("author");
  }

  setAuthor(name: string): void {
    this.typedAuthor = name; // also where the browser has no space for it
    this.keepSetting("author", name);
  }

  keepSetting(name: string, value: string): void {
    this.keepSafely(() => this.storage.set(name, value));
    this.changed();
  }

  /** Whose drafts these are: the server knows whoever has logged in; without a login they are this browser's. */
  protected get draftsOf(): string {
    return this.who.name ? "" : this.clientId;
  }

  isInside(position: Position): boolean {
    if (this.frame === null) return true;
    const index = this.frame.toIndex.map((row) => row.reduce((sum, f, i) => sum + f * (position[i] ?? (i === row.length - 1 ? 1 : 0)), 0));
    return index.every((v, axis) => v >= -0.5 && v <= (this.frame?.size[axis] ?? 0) - 0.5);
  }

  edited(message: string): void {
    this.lastSaved = ""; // it has been read
    this.keep();
    this.tell(message);
    clearTimeout(this.draftTimer);
    const { open } = this;
    if (open !== null) this.draftTimer = setTimeout(() => void this.sendDraft(open), DRAFT_MS);
  }

  // --- keeping and sending ----------------------------------------------------------------------------------------------

  protected keep(): void {
    const open = this.open;
    if (open !== null) this.keepSafely(() => this.storage.keepCase(open.kept()));
  }

  /** Write into the browser, unless another tab works on; a full one is said. */
  protected keepSafely(write: () => void): void {
    if (!this.isActive) return;
    try {
      write();
    } catch (error) {
      if (!(error instanceof StorageFault)) throw error;
      this.trouble = say("cannotKeep", { why: error.message });
    }
  }

  protected sendDraft(of: Annotation): Promise<void> {
    this.drafting = this.drafting.then(() => this.draft(of));
    return this.drafting;
  }

  private async draft(of: Annotation): Promise<void> {
    const { image, points, baseRevision, repeat, pixels, edits } = of;
    const isSubmitted = this.waiting().some((e) => isOf(e, of) && e.edits >= edits);
    if (!this.isActive || !of.isUnsent || edits === of.drafted || isSubmitted || this.server !== "connected") return;
    if (this.conflict?.isDraft === true && this.isOpen(of)) return; // it would write over the draft that the person is looking at
    try {
      const saved = await this.api.keepDraft({ image, points, baseRevision, author: this.draftsOf, repeat, pixels }, edits);
      of.drafted = edits;
      this.noteDraft(of, saved);
    } catch (error) {
      this.failed(error);
    }
  }

  /** Remember which draft is this browser's, so that one of another is told apart. */
  private noteDraft(of: Annotation, saved: string): void {
    if (this.isOpen(of) && this.open !== null) {
      this.open.draftSaved = saved;
      this.keep();
      return;
    }
    const kept = this.storage.loadCase(of.image, of.repeat);
    if (kept !== null) this.keepSafely(() => this.storage.keepCase({ ...kept, draftSaved: saved }));
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
    if (open.baseRevision === 0 && !open.points.some(isByPerson)) {
      this.tell(say("nothingStated"));
      return;
    }
    if (!this.isActive || (this.submitted?.open === open && this.submitted.edits === open.edits)) return; // pressed twice
    const { image, points, baseRevision, baseHash, repeat, edits, copy } = open;
    const outside = points.filter((p) => isByPerson(p) && p.position !== null && !this.isInside(p.position)).map((p) => p.name);
    if (outside.length) {
      this.tell(outsideText(outside));
      return;
    }
    const entry: Entry = { image, points, baseRevision, baseHash, repeat, pixels: this.frame?.pixels ?? open.pixels, edits, copy, author: this.author, key: newKey(), state: "waits", why: "" };
    this.keepSafely(() => this.storage.put(entry));
    clearTimeout(this.draftTimer);
    this.asked++; // what is still to follow or to be predicted comes too late
    this.submitted = { open, edits };
    this.thenNext = { key: entry.key, strategy };
    this.tell(say("sent", { case: image }));
    await this.deliver();
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
      .filter((k) => !this.isOpen(k) && !entries.some((e) => isOf(e, k)));
    return [...entries.map(of), ...changed.map((k) => ({ image: k.image, repeat: k.repeat, why: say("changedOnly"), entry: null }))];
  }

  /** Send what waits, oldest first; one delivery at a time. */
  async deliver(): Promise<void> {
    while (this.delivering !== null) await this.delivering;
    this.delivering = this.sendAll();
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

  private async sendAll(): Promise<void> {
    const held = new Set<string>(); // cases that the server cannot save now: of each, one after the other
    for (const entry of this.waiting()) {
      if (!this.isActive || this.server === "logged out") return;
      const of = JSON.stringify([entry.image, entry.repeat]);
      const isThere = this.waiting().some((e) => e.key === entry.key); // else discarded while one before it was on its way
      if (!isThere || held.has(of) || (await this.send(entry))) continue;
      if (this.server !== "connected") return;
      held.add(of);
    }
  }

  /** False where the server cannot be asked now, or cannot save this case: it waits. */
  private async send(entry: Entry): Promise<boolean> {
    this.busy++;
    this.sending = entry.key;
    this.changed();
    try {
      await this.drafting; // one that came later would outlive what is submitted now
      const saved = await this.api.save({ ...entry, ...this.baseOf(entry) }, this.task);
      this.server = "connected";
      this.arrived(entry, saved);
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
      this.sending = "";
      this.changed();
    }
  }

  /** What was submitted on top of one that has arrived since starts from its revision. */
  private baseOf(entry: Entry): Pick<Entry, "baseRevision" | "baseHash"> {
    const kept = this.storage.loadCase(entry.image, entry.repeat);
    const isLater = kept !== null && isOf(entry, kept) && kept.delivered > 0 && kept.delivered < entry.edits && kept.baseRevision > entry.baseRevision;
    const { baseRevision, baseHash } = isLater ? kept : entry;
    return { baseRevision, baseHash };
  }

  private arrived(entry: Entry, saved: Pick<Revision, "revision" | "hash">): void {
    this.arrivals++;
    const isOpen = this.open !== null && isOf(entry, this.open);
    const annotation = isOpen ? this.open : this.kept(entry);
    if (annotation !== null && isOf(entry, annotation)) {
      annotation.acknowledged(entry.edits, saved);
      annotation.pixels = entry.pixels;
      if (annotation.isUnsent || isOpen) this.keepSafely(() => this.storage.keepCase(annotation.kept()));
      else this.storage.dropCase(entry.image, entry.repeat);
    }
    for (const other of this.storage.entries()) // what was refused before counts no more
      if (isOf(other, entry) && other.key <= entry.key) this.storage.forget(other.key);
    if (annotation?.isUnsent === true) void this.sendDraft(Object.assign(annotation, { drafted: -1 })); // the server has dropped its draft with the submission
    else if (!this.who.name) void this.dropDraft(entry.image, entry.repeat); // of whoever has logged in the server knows
    this.lastSaved = savedText(entry.image, entry.repeat ? null : saved.revision, entry.points);
    this.tell(this.lastSaved);
    if (isOpen && this.conflict !== null && this.conflict.revision <= saved.revision) this.conflict = null;
    if (this.thenNext?.key === entry.key) {
      this.advanceBy = isOpen && this.open?.isUnsent === false ? this.thenNext.strategy : null;
      this.thenNext = null;
    }
  }

  private kept(entry: Entry): Annotation | null {
    const kept = this.storage.loadCase(entry.image, entry.repeat);
    return kept === null ? null : Annotation.of(kept, this.task);
  }

  protected isOpen(what: { image: string; repeat: boolean }): boolean {
    return this.open !== null && this.open.image === what.image && this.open.repeat === what.repeat;
  }

  private meet(entry: Entry, current: Revision): void {
    const why = conflictText(current, entry.baseRevision, differences(entry.points, current.points).length);
    if (this.open !== null && isOf(entry, this.open)) {
      this.conflict = current;
      this.message = "";
      this.thenNext = this.submitted = null;
    }
    this.keepSafely(() => this.storage.put({ ...entry, state: "conflict", why }));
  }

  private refuse(entry: Entry, why: string): void {
    this.trouble = say("refused", { case: entry.image, why });
    this.message = "";
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
      if (!this.differing().some((p) => p.name === name)) {
        this.tell(say("nothingDiffers", { name }));
        return;
      }
      open.replaceAll(conflict.points.filter((p) => p.name === name), "take");
      this.edited(say("tookPoint", { name }));
      return;
    }
    open.replaceAll(conflict.points, "take");
    if (conflict.isDraft !== true) {
      open.acknowledged(open.edits, conflict);
      void this.dropDraft(open.image, open.repeat);
    } else open.draftSaved = conflict.created;
    this.settle();
    this.edited(say(conflict.isDraft === true ? "tookDraft" : "tookAll", { n: conflict.revision }));
  }

  async submitMine(strategy: string): Promise<void> {
    const { open, conflict } = this;
    if (open === null || conflict === null) return;
    if (conflict.isDraft !== true) open.startFrom(conflict);
    this.settle();
    await this.submit(strategy);
  }

  private settle(): void {
    this.conflict = null;
    for (const entry of this.storage.entries())
      if (entry.state === "conflict" && this.open !== null && isOf(entry, this.open)) this.storage.forget(entry.key);
  }

  // --- what the server does not have --------------------------------------------------------------------------------------

  async sendAgain(what: Unsent): Promise<void> {
    const { entry } = what;
    if (entry === null) return this.openCase(what.image, what.repeat);
    this.trouble = "";
    this.keepSafely(() => this.storage.put({ ...entry, author: this.who.name || entry.author || this.author, state: "waits", why: "" }));
    await this.deliver();
  }

  async discard(what: Unsent): Promise<void> {
    if (what.entry !== null && what.entry.key === this.sending) return this.tell(say("onItsWay", { case: what.image }));
    const kept = this.storage.loadCase(what.image, what.repeat);
    if (what.entry !== null) this.storage.forget(what.entry.key);
    // The case's own state goes too, unless it is open or holds more than was submitted.
    if (what.entry === null || (!this.isOpen(what) && kept !== null && isOf(what.entry, kept) && kept.edits <= what.entry.edits))
      this.storage.dropCase(what.image, what.repeat);
    this.trouble = "";
    this.tell(say("discarded", { case: what.image }));
    if (this.storage.loadCase(what.image, what.repeat) === null) await this.dropDraft(what.image, what.repeat);
  }

  /** Take over what was done here before people had to log in. */
  takeOver(): void {
    const before = this.storage.nobodys;
    this.storage.takeOver();
    const left = this.storage.nobodys;
    const answers = this.storage.answers().length;
    this.tell([say("tookOver", { n: before - left }), answers ? say("tookOverAnswers", { n: answers }) : "", left ? say("notTakenOver", { n: left }) : ""].filter(Boolean).join(" "));
  }

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

  /** What happened next, behind what was saved just before. */
  protected afterSave(message: string): string {
    const both = [this.lastSaved, message].filter(Boolean).join(". ");
    if (this.server === "connected") this.lastSaved = ""; // else said once more when the server is back
    return both;
  }

  failed(error: unknown): void {
    if (error instanceof LoggedOut) this.server = "logged out";
    else if (error instanceof Unreachable) {
      this.server = error instanceof Busy ? this.server : "away";
      this.message = this.afterSave(error instanceof Busy ? error.message : awayText(!this.storage.isPartlyKept));
    } else if (error instanceof Error) this.message = error instanceof Refused ? this.afterSave(error.message) : say("unexpected", { why: error.message });
    this.changed();
  }
}
