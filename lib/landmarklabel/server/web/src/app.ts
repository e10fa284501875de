/** The page: the image on the left, the panel on the right; buttons and keys. What they do is in `work`. */

import { button, link, make, put } from "./dom";
import { bindKeys } from "./keys";
import type { Asked } from "./link";
import { Measurements } from "./measurements";
import { More } from "./more";
import { LandmarkTable } from "./table";
import { awayText, conflictText, KEYS, say } from "./texts";
import { UnsentList } from "./unsent";
import type { CaseView, Picture, ViewEvents } from "./view";
import { View2D } from "./view2d";
import { View3D } from "./view3d";
import { isByPerson, type Point, type Position } from "./wire";
import type { Annotation } from "./annotation";
import type { Work } from "./work";

const NUDGE = 0.1; // of a sample of the image

export class App {
  readonly element = make("div", { class: "app" });
  private readonly view: CaseView;
  private readonly table: LandmarkTable;
  private readonly status = make("span", { class: "status" });
  private readonly caseLabel = make("strong", { class: "case" });
  private readonly reason = make("p", { class: "reason" });
  private readonly progress = make("span", { class: "progress" });
  private readonly message = make("p", { class: "message" });
  private readonly trouble = make("p", { class: "trouble" });
  private readonly back = make("p");
  private placesAll = false; // also those that were proposed meanwhile
  private readonly conflict = make("section", { class: "conflict" });
  private readonly conflictText = make("p");
  private readonly takePoint = button(say("takePointButton"), "", () => this.withSelected((name) => this.work.takeTheirs(name)));
  private readonly takeAll = button(say("takeAllButton"), "", () => this.work.takeTheirs(null));
  private readonly empty = make("div", { class: "empty" }, make("h2", { text: say("noCase") }), make("p", { text: say("noCaseHelp") }));
  private readonly author = make("input");
  private readonly ofCase: HTMLButtonElement[] = [];
  private readonly next = button(say("nextButton"), "", () => void this.work.nextCase(this.more.chosenStrategy));
  private readonly keys = make("dialog", { class: "keys" });
  private asked: Asked | null = null; // from another page, until its image is shown
  private isAsking = false; // a submission waits for what the server says of the last move
  private sureOf = ""; // the case and the points that are submitted although they look like slips
  private doubted: string | null = null; // where the last "next doubtful" has led
  private beside: Asked | null = null; // the last of these, for where its landmark is expected
  private readonly measurements: Measurements;
  private readonly unsent: UnsentList;
  private readonly more: More;
  private shownCase: Annotation | null = null;
  private shownPicture: Picture | null = null;
  private isDue = false;

  constructor(
    private readonly work: Work,
    logout: () => void,
  ) {
    const events: ViewEvents = {
      place: (name, position, isFinal) => this.isShown && this.work.place(name, position, isFinal),
      cancelled: () => this.isShown && this.work.takeMoveBack(),
      select: (name) => this.select(name, false),
      clicked: (position) => this.clicked(position),
    };
    this.view = work.task.dims === 3 ? new View3D(events) : new View2D(events);
    const ask = (image: string, points: readonly Point[]) => work.api.measure(work.model, image, points, work.task);
    this.measurements = new Measurements(ask, () => this.refresh());
    this.unsent = new UnsentList(work);
    this.more = new More(work);
    this.table = new LandmarkTable((name) => this.select(name));
    this.message.setAttribute("role", "status");
    this.trouble.setAttribute("role", "alert");
    this.element.append(this.viewer(), this.panel(logout), this.keyList());
    bindKeys(this.actions());
    this.refresh();
  }

  /** Show the state, once before the next drawing however often it changes. */
  refresh(): void {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.show();
    });
  }

  /** Whether the case that is open is the one on the screen: a hand may still be at the one before. */
  private get isShown(): boolean {
    return this.work.open === this.shownCase;
  }

  // --- what there is ------------------------------------------------------------------------------------------------------

  private viewer(): HTMLElement {
    const tools = make(
      "div",
      { class: "tools" },
      button("+", "+", () => this.view.zoomBy(1.25)),
      button("−", "-", () => this.view.zoomBy(0.8)),
      button(say("fitButton"), "0", () => this.view.fit()),
      button(say("invertButton"), "I", () => this.view.invert()),
      button(say("contrastButton"), "C", () => this.view.resetWindow()),
      button(say("keysButton"), "?", () => this.keys.showModal()),
    );
    return make("section", { class: "viewer" }, this.view.element, tools, this.empty);
  }

  private panel(logout: () => void): HTMLElement {
    const act = (text: Parameters<typeof say>[0], key: string, does: (event: MouseEvent) => unknown): HTMLButtonElement => {
      const made = button(say(text), key, does);
      this.ofCase.push(made);
      return made;
    };
    const actions = this.actions();
    const once = (does: () => void) => (event: MouseEvent): void => (event.detail > 1 ? this.work.tell(say("clickedTwice")) : does()); // so that the next landmark stays as it is
    const points = make(
      "div",
      { class: "buttons" },
      act("predictButton", "P", actions.predict),
      act("nextDoubtfulButton", "N", actions.nextDoubtful),
      act("acceptButton", "A", once(actions.accept)),
      act("placeButton", "L", actions.place),
      act("absentButton", "X", once(actions.absent)),
      act("unlockButton", "U", actions.unlock),
      act("undoButton", "Ctrl+Z", actions.undo),
      act("redoButton", "Ctrl+Y", actions.redo),
      act("acceptAllButton", "Shift+A", actions.acceptAll),
    );
    const submit = act("submitButton", "Ctrl+Enter", (event) => event.detail < 2 && actions.submit()); // a double click is one press
    submit.classList.add("main");
    this.next.classList.add("main");
    this.conflict.append(
      this.conflictText,
      this.takePoint,
      this.takeAll,
      button(say("submitMineButton"), "", () => {
        void this.onceSure(() => this.work.submitMine(this.more.chosenStrategy));
      }),
    );
    const back = link("./quality.html", say("backToQuality"));
    this.back.append(back);
    this.back.hidden = true;
    const server = make("div", { class: "server" }, this.status);
    if (this.work.who.name) server.append(button(say("logoutButton"), "", logout));
    return make(
      "aside",
      { class: "panel" },
      server,
      ...(this.work.who.name ? [] : [this.nameField()]),
      this.back,
      make("div", { class: "head" }, this.caseLabel, this.progress),
      this.reason,
      this.trouble,
      this.message,
      make("div", { class: "buttons" }, this.next, submit),
      this.conflict,
      points,
      this.table.element,
      ...(this.work.task.measurements.length ? [this.measurements.element] : []),
      this.unsent.element,
      this.more.element,
    );
  }

  /** Who is at the page, where no login says so. */
  private nameField(): HTMLElement {
    this.author.value = this.work.author;
    this.author.title = say("authorHelp");
    this.author.addEventListener("change", () => this.work.setAuthor(this.author.value.trim()));
    return make("label", { class: "field" }, make("span", { text: say("author") }), this.author);
  }

  private keyList(): HTMLElement {
    const rows = KEYS.map(([key, does]) => make("tr", {}, make("th", { text: key }), make("td", { text: does })));
    this.keys.append(make("h2", { text: say("keysTitle") }), make("table", {}, make("tbody", {}, ...rows)), button(say("close"), "Esc", () => this.keys.close()));
    return this.keys;
  }

  // --- what people do -------------------------------------------------------------------------------------------------------

  /** Submit, unless something looks like a slip, also by what the server is about to say of the last move. */
  private async onceSure(submit: () => Promise<void>): Promise<void> {
    const { open } = this.work;
    if (this.isAsking || open === null) return; // a second press would answer a question that nobody has seen
    this.isAsking = true;
    await this.work.following.judged();
    this.isAsking = false;
    if (open !== this.work.open || this.view.isDragging) this.work.tell(say("notSubmitted", { case: open.image }));
    else if (this.isSure()) await submit();
  }

  /** Whether nothing looks like a slip, or a person has pressed a second time with the same points there. */
  private isSure(): boolean {
    const { open } = this.work;
    const slips = open?.slips() ?? [];
    const of = JSON.stringify([open?.image, slips.map((name) => [name, open?.point(name).position])]);
    if (!slips.length || of === this.sureOf) return true;
    this.sureOf = of;
    this.work.tell(say("slips", { names: slips.join(", ") }));
    return false;
  }

  private actions() {
    return {
      predict: () => void this.work.predict(),
      nextDoubtful: () => this.nextDoubtful(),
      accept: () => this.withSelected((name) => this.work.accept(name), true),
      acceptAll: () => this.work.acceptAll(),
      place: () => this.startPlacing(this.table.selected !== null && this.work.open?.point(this.table.selected).position === null),
      absent: () => this.withSelected((name) => this.work.markAbsent(name), true),
      unlock: () => this.withSelected((name) => this.work.unlock(name)),
      undo: () => this.work.undo(),
      redo: () => this.work.redo(),
      submit: () => {
        if (!this.view.isDragging) void this.onceSure(() => this.work.submit(this.more.chosenStrategy)); // else where a hand happens to be
      },
      resetWindow: () => this.view.resetWindow(),
      nudge: (dx: number, dy: number) => this.nudge(dx * NUDGE, dy * NUDGE),
      neighbour: (step: 1 | -1) => this.select(this.table.neighbour(step)),
      zoom: (factor: number) => this.view.zoomBy(factor),
      fit: () => this.view.fit(),
      invert: () => this.view.invert(),
      scroll: (slices: number) => this.view.scroll(slices),
      alone: (isAlone: boolean) => this.view.alone(isAlone),
      stopPlacing: () => this.stopPlacing(),
      help: () => this.keys.showModal(),
    };
  }

  /** Select a landmark that was asked for from the page of the labels' quality, show its place, and offer the way back. */
  goTo(asked: Asked): void {
    this.back.hidden = !asked.landmark;
    this.asked = this.beside = asked;
    this.refresh();
  }

  /** Another case is about to open: what the hand has not let go of is where it was. */
  letGo(): void {
    this.view.letGo();
  }

  /** Once the image of the case is there. */
  private goToAsked(): void {
    const { asked, work } = this;
    if (asked === null || this.shownCase === null || this.shownPicture === null || work.open !== this.shownCase) return;
    this.asked = null;
    if (asked.image !== this.shownCase.image || !asked.landmark) return;
    if (!work.task.landmarks.some((l) => l.name === asked.landmark)) return work.tell(say("noSuchLandmark", { name: asked.landmark }));
    this.select(asked.landmark);
    if (asked.expected !== null) work.tell(say("expectedHere", { name: asked.landmark }));
  }

  private select(name: string | null, jumps = true): void {
    const placesAnother = this.view.isPlacing && name !== this.table.selected;
    this.table.selected = name;
    if (placesAnother) {
      this.view.isPlacing = false;
      if (name !== null) this.startPlacing(this.placesAll); // says which it is now
    }
    const position = name === null ? null : (this.work.open?.point(name).position ?? null);
    if (jumps && position !== null) this.view.reveal(position);
    this.refresh();
    requestAnimationFrame(() => this.table.reveal());
  }

  /** A flagged point first, then the one the server would ask about, then the most doubtful; pressed again, the one after it. */
  private nextDoubtful(places = true): void {
    const open = this.work.open;
    if (open === null) return;
    const left = open.doubtful();
    const flagged = open.points.filter((p) => p.flagged && p.state !== "accepted").map((p) => p.name);
    const inOrder = [...new Set([...flagged, ...left.filter((n) => n === open.next), ...left])];
    const at = this.table.selected === this.doubted ? inOrder.indexOf(this.doubted ?? "") : -1;
    const name = inOrder[at + 1] ?? inOrder[0] ?? null;
    this.doubted = name;
    if (name === null) this.work.tell(say("allLookedAt"));
    else {
      this.view.isPlacing = false; // of the point before
      this.select(name);
      if (places && open.point(name).position === null) this.startPlacing();
    }
  }

  private withSelected(act: (name: string) => unknown, forward = false): void {
    const name = this.table.selected;
    if (name === null) {
      this.work.tell(say("selectFirst"));
      return;
    }
    const before = this.work.open?.points;
    this.stopPlacing();
    act(name);
    if (forward && this.work.open?.points !== before && this.work.open?.doubtful().length) this.nextDoubtful(false); // a click that was meant to look around places nothing
  }

  /** The next click places the selected point, and the one after it the next without a place; `all`: also what is proposed meanwhile. */
  private startPlacing(all = false): void {
    const name = this.table.selected;
    if (name === null || this.work.open === null) {
      this.work.tell(say("selectFirst"));
      return;
    }
    const state = this.work.open.point(name).state;
    if (state === "accepted" || state === "absent") {
      this.work.tell(say("locked", { name, state: say(`state_${state}`) }));
      return;
    }
    this.view.isPlacing = true;
    this.placesAll = all;
    this.work.tell(say("clickToPlace", { name }));
  }

  private stopPlacing(): void {
    this.view.isPlacing = false;
    this.refresh();
  }

  private clicked(position: Position): void {
    const name = this.table.selected;
    this.view.isPlacing = false;
    if (name !== null && this.isShown && this.work.place(name, position)) {
      const points = this.work.open?.points ?? [];
      const at = points.findIndex((p) => p.name === name);
      const following = [...points.slice(at + 1), ...points.slice(0, at)].find((p) => !isByPerson(p) && (this.placesAll || p.position === null));
      if (following !== undefined) {
        this.select(following.name);
        this.startPlacing(this.placesAll);
      }
    }
  }

  private nudge(dx: number, dy: number): void {
    const name = this.table.selected;
    const position = name === null ? null : (this.work.open?.point(name).position ?? null);
    if (name !== null && position !== null) this.work.place(name, this.view.nudged(position, dx, dy));
  }

  // --- what is shown ----------------------------------------------------------------------------------------------------------

  private show(): void {
    const { work } = this;
    const open = work.open;
    if (open !== this.shownCase) {
      this.shownCase = null;
      this.view.letGo();
      this.shownCase = open;
      this.table.selected = open?.points[0]?.name ?? null;
      this.doubted = null;
      this.view.isPlacing = false;
      this.unsent.forgetClick();
    }
    if (work.picture !== this.shownPicture) {
      this.shownPicture = work.picture;
      void Promise.resolve(this.view.show(work.picture, work.frame, open?.image ?? "")).then(() => this.goToAsked());
    } else this.goToAsked();
    this.element.classList.toggle("busy", work.busy > 0);
    this.element.classList.toggle("placing", this.view.isPlacing);
    this.empty.hidden = open !== null;
    for (const one of this.ofCase) one.disabled = open === null;
    this.next.disabled = !Object.keys(work.strategies).length; // the server has not said yet what there is
    this.showWords();
    this.more.show();
    this.unsent.show(work.unsent(), work.storage.nobodys);
    const theirs = work.differing();
    this.conflict.hidden = work.conflict === null;
    this.takePoint.hidden = this.takeAll.hidden = !work.isThereTheirs;
    if (work.conflict !== null) put(this.conflictText, conflictText(work.conflict, open?.baseRevision ?? 0, theirs.length));
    const beside = this.beside;
    this.view.setDrawn({
      lines: this.measurements.lines(work.task, open?.points ?? []),
      expected: beside !== null && beside.image === open?.image && !open.repeat ? beside.expected : null,
    });
    if (open !== null && work.task.measurements.length) this.measurements.show(open.image, open.repeat, open.points);
    this.view.setPoints(open?.points ?? [], theirs, this.table.selected);
    const { landmarks, mmPerPixel } = work.task;
    const [unit, size] = work.frame?.unit === "px" && mmPerPixel !== null ? ["mm", mmPerPixel] : [work.frame?.unit ?? "mm", 1];
    this.table.show(landmarks, open?.points ?? [], theirs.map((p) => p.name), unit, size);
    this.element.dataset["case"] = open?.image ?? "";
  }

  private showWords(): void {
    const { work } = this;
    const open = work.open;
    put(this.status, work.server === "connected" ? (work.who.name ? say("connectedAs", { who: work.who.name }) : say("connected")) : awayText(!work.storage.isPartlyKept));
    this.status.className = `status ${work.server}`;
    put(this.caseLabel, open === null ? say("noCase") : `${open.image}${open.repeat ? ` (${say("secondReading")})` : ""}`);
    put(this.reason, open?.reason ?? "");
    const done = open?.points.filter(isByPerson).length ?? 0;
    const doubtful = open?.points.filter((p) => p.flagged || p.state === "unset").length ?? 0;
    const text = open === null ? "" : say("progress", { n: done, of: open.points.length, k: doubtful });
    put(this.progress, open?.isUnsent ? `${text}, ${say("notSent")}` : text);
    put(this.message, work.message);
    const trouble = [work.outdated, work.trouble].filter(Boolean).join(" ");
    put(this.trouble, trouble);
    this.trouble.hidden = !trouble;
  }
}
