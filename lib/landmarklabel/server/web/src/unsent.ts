/** What the server has not got yet: sent again, opened, or given up after a second click. */

import type { Unsent } from "./delivery";
import { button, make } from "./dom";
import { say } from "./texts";
import type { Work } from "./work";

export class UnsentList {
  readonly element = make("section", { class: "unsent" });
  private readonly rows = make("div", { class: "rows" });
  private discardAsked = "";

  constructor(private readonly work: Work) {
    this.element.append(make("h2", { text: say("unsentTitle") }), this.rows);
  }

  /** `nobodys`: how much was done here before people had to log in. */
  show(unsent: readonly Unsent[], nobodys: number): void {
    this.element.hidden = unsent.length === 0 && nobodys === 0;
    const mark = JSON.stringify([nobodys, ...unsent.map((u) => [u.image, u.repeat, u.why, u.entry?.key])]);
    if (this.rows.dataset["mark"] === mark) return;
    this.rows.dataset["mark"] = mark;
    this.rows.replaceChildren(
      ...unsent.map((u) =>
        make(
          "div",
          { class: "row", title: u.why },
          make("span", { class: "name", text: `${u.image}${u.repeat ? ` (${say("secondReading")})` : ""}: ${u.why}` }),
          ...(u.entry !== null && u.entry.state !== "conflict" ? [button(say("sendAgainButton"), "", () => void this.work.sendAgain(u))] : []),
          button(say("openButton"), "", () => void this.work.openCase(u.image, u.repeat)),
          button(say("discardButton"), "", () => this.discard(u)),
        ),
      ),
      ...(nobodys ? [this.left(nobodys)] : []),
    );
  }

  private left(n: number): HTMLElement {
    const takeOver = button(say("takeOverButton"), "", () => this.work.takeOver());
    return make("div", { class: "row" }, make("span", { class: "name", text: say("nobodys", { n }) }), takeOver);
  }

  /** A click on Discard counts as the first one again. */
  forgetClick(): void {
    this.discardAsked = "";
  }

  private discard(what: Unsent): void {
    const mark = `${what.entry?.key ?? ""} ${what.image} ${what.repeat}`;
    if (this.discardAsked !== mark) {
      this.discardAsked = mark;
      this.work.tell(say("discardSure", { case: what.image }));
      return;
    }
    this.discardAsked = "";
    void this.work.discard(what);
  }
}
