/** What the page's buttons do: the server, cases, points, training. No DOM: `changed` tells whoever shows it. */

import { Annotation, differences, isOf, type Kept } from "./annotation";
import { Refused, type Draft, type Who } from "./api";
import { Delivery } from "./delivery";
import { Flat } from "./flat";
import { Following } from "./following";
import { StorageFault } from "./storage";
import { acceptedText, outsideText, say } from "./texts";
import { Training } from "./training";
import type { Picture } from "./view";
import { Volume } from "./volume";
import { saysTheSame, type CaseRow, type Frame, type Point, type Position, type Revision, type Suggestion } from "./wire";

const AGAIN_MS = 5_000; // until what waits is sent again
const ALIVE_MS = 2_000; // between two looks for a server that does not answer

export class Work extends Delivery {
  picture: Picture | null = null;
  history: readonly Revision[] = [];
  cases: readonly CaseRow[] = [];
  readonly following = new Following(this);
  readonly training = new Training(this);
  models: readonly string[] = [];
  strategies: Record<string, string> = {};
  model = "";
  outdated = ""; // said where the study's task is not the one that this page was opened with any more

  private opening = 0; // so that a case that was asked for earlier does not replace a later one
  private goneText = ""; // what the case that opens has and the task has not
  private draftElsewhere: Revision | null = null; // of the case that opens: what the same person has done in another browser
  private isChoosing = false; // the next case is asked for
  private lastTry = 0; // of sending again, or of looking for the server

  /** Begin: what the server offers, what waits is sent, the case that was open opens again, unless another is asked for. */
  async start(who: Who, asked = ""): Promise<void> {
    this.who = who;
    this.server = "connected";
    await this.doing(async () => {
      const info = await this.api.info();
      this.models = info.models;
      this.strategies = info.strategies;
      this.training.statistics = info.training;
      this.model ||= info.models[0] ?? "";
      await this.listCases();
    });
    await this.deliver();
    const opened = this.storage.opened();
    if (asked) return; // whoever asked for it opens it
    if (this.open === null && opened !== null) await this.openCase(opened.image, opened.repeat);
    else await this.fetchMissingImage();
  }

  /** Called every second or so: sends again what waits, and looks for a server that was away. */
  async tick(now: number = Date.now()): Promise<void> {
    if (!this.isActive || this.server === "logged out") return;
    if (this.server === "away") {
      if (now - this.lastTry < ALIVE_MS) return;
      this.lastTry = now;
      await this.doing(async () => {
        await this.api.who();
        this.tell(this.afterSave(say("back")));
      });
      if (this.isConnected()) {
        void this.checkTask().catch(() => undefined);
        if (this.open !== null) void this.sendDraft(this.open);
        await this.fetchMissingImage();
        await this.deliver();
      }
    } else if (this.open !== null && this.picture === null && !this.busy && now - this.lastTry >= AGAIN_MS) {
      this.lastTry = now;
      await this.fetchMissingImage(); // the server was there and could not send it
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
    if (this.isChoosing) {
      this.tell(say("nextComes")); // another would be held for nobody
      return;
    }
    this.isChoosing = true;
    const opening = this.opening;
    await this.doing(async () => {
      const chosen = await this.api.nextCase(strategy, this.clientId).finally(() => (this.isChoosing = false));
      if (opening !== this.opening) return; // the person has opened another case meanwhile
      if (chosen === null) {
        this.tell(this.afterSave(say("allDone")));
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
      let [arrivals, history, draft]: [number, Revision[], Draft | Error | null] = [0, [], null];
      do {
        arrivals = this.arrivals;
        history = repeat ? [] : await this.api.history(image, this.task); // of a second reading, nobody is shown the first
        draft = await this.draftOf(image, repeat);
        if (opening !== this.opening) return;
      } while (arrivals !== this.arrivals); // of a submission that has arrived meanwhile the answers do not know
      const newest = history.at(-1);
      const [annotation, why] = this.asLeft(image, repeat, reason, newest, draft); // after the answers: the case that is open is worked on meanwhile
      this.leave();
      this.asked++;
      this.submitted = annotation === this.open ? this.submitted : null; // what is on its way of it is so still
      this.open = annotation;
      this.history = history;
      this.conflict = newest !== undefined && annotation.isUnsent && annotation.isOvertakenBy(newest) ? newest : this.draftElsewhere;
      this.frame = this.picture = null;
      this.trouble = [this.goneText, this.storage.fault && say("cannotKeep", { why: this.storage.fault })].filter(Boolean).join(" ");
      this.tell(this.afterSave(why && why !== reason ? `${image}: ${why}` : ""));
      this.keep();
      this.noteOpen(annotation);
      await this.fetchImage(annotation);
    });
    void this.listCases().catch(() => undefined);
    void this.checkTask().catch(() => undefined);
  }

  /** Whether the study's task is still the one that all numbers here are of: another program may have changed it. */
  private async checkTask(): Promise<void> {
    this.outdated = JSON.stringify(await this.api.task()) === JSON.stringify(this.task) ? "" : say("taskChanged");
    this.changed();
  }

  private noteOpen(annotation: Annotation): void {
    try {
      this.storage.noteOpen(annotation.image, annotation.repeat);
    } catch (error) {
      if (!(error instanceof StorageFault)) throw error;
    }
  }

  /** What the server keeps of a case for this person; an error where it could not be asked. */
  private draftOf(image: string, repeat: boolean): Promise<Draft | Error | null> {
    const none = (error: Error): Error | null => (error instanceof Refused ? null : error); // a role that may have none
    return this.api.draft(image, this.draftsOf, repeat, this.task).catch(none);
  }

  private asLeft(image: string, repeat: boolean, reason: string, newest: Revision | undefined, draft: Draft | Error | null): [Annotation, string] {
    const kept = this.storage.loadCase(image, repeat);
    this.goneText = "";
    this.draftElsewhere = null;
    if (kept !== null && kept.edits > kept.delivered) {
      const gone = Annotation.gone(kept, this.task);
      if (gone.length) {
        this.storage.copyCase(kept);
        this.goneText = say("gone", { names: gone.join(", ") });
      }
      const isElsewhere = draft !== null && !(draft instanceof Error) && draft.saved !== kept.draftSaved;
      if (isElsewhere && differences(kept.points, draft.points).length)
        this.draftElsewhere = { revision: draft.baseRevision, author: "", created: draft.saved, hash: "", points: draft.points, isDraft: true };
      return [this.open !== null && isOf(this.open, kept) ? this.open : Annotation.of(kept, this.task), say("yourChanges")];
    }
    const waits = this.storage.entries().filter((e) => e.image === image && e.repeat === repeat).at(-1);
    if (waits !== undefined) {
      const asSent: Kept = { ...waits, reason, delivered: waits.edits, draftSaved: "" };
      return [Annotation.of(asSent, this.task), say("asSubmitted")];
    }
    if (draft instanceof Error) throw draft; // else the next edit would write over a draft that nobody has seen
    if (draft !== null) {
      const made = new Annotation(this.task, image, draft.points, draft.baseRevision, reason, repeat);
      made.edits = made.drafted = 1;
      made.draftSaved = draft.saved;
      made.pixels = draft.pixels;
      return [made, say("yourDraft")];
    }
    const fresh = new Annotation(this.task, image, newest?.points ?? null, newest?.revision ?? 0, reason, repeat);
    fresh.baseHash = newest?.hash ?? "";
    return [fresh, reason];
  }

  private async fetchMissingImage(): Promise<void> {
    const { open } = this;
    if (open !== null && this.picture === null) await this.doing(() => this.fetchImage(open));
  }

  private async fetchImage(annotation: Annotation): Promise<void> {
    try {
      const frame = await this.api.frame(annotation.image); // before the image: one exchanged in between is refused later
      const picture = await this.fetchPicture(annotation.image, frame);
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

  private fetchPicture(image: string, frame: Frame): Promise<Picture> {
    if (this.task.dims === 2) return Flat.of(frame, (low, high, part, signal) => this.api.picture(image, low, high, part, signal));
    return Volume.of(frame, (first, size, step) => this.api.voxels(image, first, size, step));
  }

  /** Another case opens: of this one, only what the server does not have is needed. */
  private leave(): void {
    const open = this.open;
    if (open === null || !this.isActive) return;
    if (this.conflict?.isDraft !== true) void this.sendDraft(open);
    if (!open.isUnsent) this.storage.dropCase(open.image, open.repeat);
  }

  /** Whether nothing is proposed: a second reading is to be independent of the first, and a person may want that of any. */
  get withoutProposals(): boolean {
    return this.open?.repeat === true || this.storage.setting("withoutProposals") === "yes";
  }

  // --- points ----------------------------------------------------------------------------------------------------------

  async predict(): Promise<void> {
    const open = this.open;
    if (open === null) return;
    if (!this.model) {
      this.tell(say("noModel"));
      return;
    }
    if (this.withoutProposals) return this.tell(say(open.repeat ? "inSecondReading" : "withoutProposals"));
    const asked = ++this.asked;
    await this.doing(async () => {
      let told: readonly Point[], answer: Suggestion;
      do {
        told = open.points;
        answer = await this.api.predict(this.model, open.image, told, this.task);
        if (this.open !== open || asked !== this.asked || this.withoutProposals) return;
      } while (!saysTheSame(told, open.points)); // meanwhile something was unlocked, accepted or called absent
      open.propose(answer.points, answer.next);
      const by = say(answer.origin === "model" ? "predicted" : answer.origin === "template" ? "byTemplate" : "nothingKnown");
      this.edited([by, ...answer.cautions].join("; "));
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
    void this.following.follow(name);
    return true;
  }

  /** A drag ended where the point cannot be, or was broken off. */
  takeMoveBack(): void {
    this.asked++; // the others follow no move that never was
    this.open?.takeMoveBack();
    this.edited(this.message);
    this.following.followWhatStands();
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
    const flagged = open.points.filter((p) => p.flagged && p.state !== "accepted").map((p) => p.name);
    const taken = open.acceptAll([...outside, ...flagged]);
    this.edited(acceptedText(taken, flagged, outside));
  }

  markAbsent(name: string): boolean {
    if (this.open === null || this.isLocked(name)) return false;
    this.open.markAbsent(name);
    this.edited(say("absent", { name }));
    void this.following.follow();
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

  /** Whether the other version has points: a study that was restored from an older copy may have none. */
  get isThereTheirs(): boolean {
    return this.conflict !== null && (this.conflict.revision > 0 || this.conflict.isDraft === true);
  }

  undo(): void {
    this.asked++; // an answer still on its way belongs to what is undone
    const step = this.open?.undo() ?? null;
    this.edited(step ? say("undone", { what: say(`what_${step.what}`, { name: step.name }) }) : say("nothingToUndo"));
    this.following.followWhatStands();
  }

  redo(): void {
    this.asked++;
    const step = this.open?.redo() ?? null;
    this.edited(step ? say("redone", { what: say(`what_${step.what}`, { name: step.name }) }) : say("nothingToRedo"));
    this.following.followWhatStands();
  }

  restore(revision: Revision): void {
    this.asked++;
    this.open?.replaceAll(revision.points, "restore");
    this.edited(say("restored", { n: revision.revision, who: revision.author || say("somebody") }));
  }

  /** Do something that may meet a fault, which is said. */
  async doing(job: () => Promise<void>): Promise<void> {
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
}
