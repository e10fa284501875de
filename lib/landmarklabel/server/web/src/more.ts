/** What is seldom needed, folded away: how cases are chosen and opened, earlier revisions, training, and the other pages. */

import { button, choice, link, make, put } from "./dom";
import { say } from "./texts";
import type { CaseRow, Revision } from "./wire";
import type { Work } from "./work";

const TRAINING_MS = 5_000; // between two looks at how a training goes on

export class More {
  readonly element: HTMLElement;
  private readonly strategy = choice(say("strategy"), (value) => this.work.keepSetting("strategy", value));
  private readonly model = choice(say("model"), (value) => (this.work.model = value));
  private readonly caseChoice = choice(say("openCase"), (value) => void (value && this.work.openCase(value)));
  private readonly revisionChoice = choice(say("revisions"), () => undefined);
  private readonly trainingText = make("p");
  private readonly minutes = make("input");
  private readonly withoutProposals = make("input");
  private readonly again = button(say("readAgainButton"), "", () => {
    const { open } = this.work;
    if (open !== null) void this.work.openCase(open.image, true);
  });
  private watching: ReturnType<typeof setInterval> | undefined; // while it is on the screen
  private shownCases: readonly CaseRow[] | null = null;
  private shownHistory: readonly Revision[] | null = null;

  constructor(private readonly work: Work) {
    this.element = this.made();
  }

  /** The strategy that chooses the next case. */
  get chosenStrategy(): string {
    return this.strategy.value();
  }

  show(): void {
    const { work } = this;
    this.strategy.set(Object.keys(work.strategies).map((name) => [name, name]), work.storage.setting("strategy") || (Object.keys(work.strategies)[0] ?? ""));
    this.model.set(work.models.map((name) => [name, name]), work.model);
    if (work.cases !== this.shownCases) this.listCases(work.cases);
    this.caseChoice.choose(work.open?.image ?? "");
    if (work.history !== this.shownHistory) this.listRevisions(work.history);
    const isLabelled = work.cases.some((row) => row.image === work.open?.image && row.labelled) || (work.open?.delivered ?? 0) > 0;
    this.again.disabled = !isLabelled; // there is no first one
    put(this.trainingText, this.training());
  }

  private made(): HTMLElement {
    this.withoutProposals.type = "checkbox";
    this.withoutProposals.checked = this.work.storage.setting("withoutProposals") === "yes";
    this.withoutProposals.addEventListener("change", () => this.work.keepSetting("withoutProposals", this.withoutProposals.checked ? "yes" : "no"));
    this.minutes.type = "number";
    this.minutes.min = "0.1";
    this.minutes.value = "10";
    const stop = button(say("stopButton"), "", () => void this.work.training.stop());
    const train = button(say("trainButton"), "", () => void this.work.training.start(Number(this.minutes.value)));
    for (const one of [train, stop]) one.disabled = !this.mayTrain;
    const restore = button(say("restoreButton"), "", () => {
      const chosen = this.work.history.find((r) => String(r.revision) === this.revisionChoice.value());
      if (chosen !== undefined) this.work.restore(chosen);
    });
    this.again.title = say("readAgainHelp");
    const pages = [link("./quality.html", say("qualityLink")), link("../landmarks/", say("statusLink"))];
    const details = make(
      "details",
      { class: "more" },
      make("summary", { text: "…" }),
      this.strategy.element,
      this.model.element,
      this.caseChoice.element,
      this.revisionChoice.element,
      make("div", { class: "buttons" }, restore, this.again),
      make("label", { class: "check", title: say("withoutProposalsHelp") }, this.withoutProposals, say("withoutProposalsLabel")),
      make("div", { class: "head" }, ...pages),
      make("h2", { text: say("training") }),
      this.trainingText,
      make("label", { class: "field" }, make("span", { text: say("minutes") }), this.minutes),
      make("div", { class: "buttons" }, train, stop),
    );
    details.addEventListener("toggle", () => {
      clearInterval(this.watching);
      void this.work.training.look();
      if (details.open) this.watching = setInterval(() => void this.work.training.look(), TRAINING_MS);
    });
    return details;
  }

  private get mayTrain(): boolean {
    return this.work.who.name === "" || this.work.who.roles.includes("admin");
  }

  private listCases(cases: readonly CaseRow[]): void {
    this.shownCases = cases; // thousands: made anew only when they have changed
    const state = (row: CaseRow): string => (row.revision ? say(row.labelled ? "labelledBy" : "inWorkBy", { who: row.author || say("somebody") }) : say("toDo"));
    this.caseChoice.set([["", "…"], ...cases.map((row): [string, string] => [row.image, `${row.image}: ${state(row)}`])], "");
  }

  private listRevisions(history: readonly Revision[]): void {
    this.shownHistory = history;
    const placed = (points: readonly { position: unknown }[]): number => points.filter((p) => p.position !== null).length;
    this.revisionChoice.set(
      history.map((r) => [String(r.revision), say("revision", { n: r.revision, who: r.author || say("somebody"), k: placed(r.points) })]),
      String(history.at(-1)?.revision ?? ""),
    );
  }

  private training(): string {
    if (!this.mayTrain) return say("trainingRole");
    const stats = this.work.training.statistics[this.work.model] as Record<string, unknown> | undefined;
    if (stats === undefined || !Object.keys(stats).length) return say("trainingNone");
    const percent = Math.round(Number(stats["progress"] ?? 0) * (Number(stats["progress"] ?? 0) <= 1 ? 100 : 1));
    if (stats["state"] === "running") return say("trainingRuns", { model: this.work.model, percent });
    return [say(stats["published"] ? "published" : "notPublished"), String(stats["reason"] ?? "")].filter(Boolean).join("; ");
  }
}
