/** The page for a second look at the labels: which points lie least where the others expect them, and what people say of them. */

import { Api, LoggedOut, Refused, Unreachable, type Answer, type Who } from "./api";
import { button, link, make, put } from "./dom";
import { linkTo, LOGIN_FOR_QUALITY } from "./link";
import { ShapeView } from "./shape";
import { newKey, opened, StorageFault, type Storage } from "./storage";
import { say } from "./texts";
import type { Quality, QualityRow } from "./wire";

class QualityPage {
  readonly element = make("div", { class: "quality" });
  private readonly shape = new ShapeView();
  private readonly summary = make("p");
  private readonly trouble = make("p", { class: "trouble" });
  private readonly message = make("p", { class: "message" });
  private readonly rows = make("tbody");
  private readonly pages = make("span", { class: "progress" });
  private readonly alsoChecked = make("input");
  private readonly before = button(say("previousPage"), "", () => void this.turnTo(this.found.page - 1));
  private readonly after = button(say("nextPage"), "", () => void this.turnTo(this.found.page + 1));
  private found: Quality = { cases: 0, points: 0, page: 1, pages: 1, unit: "mm", rows: [], tooFew: [], shape: null };
  private chosen: QualityRow | null = null;
  private asked = 0; // so that a list that was asked for earlier does not replace a later one

  constructor(
    private readonly api: Api,
    private readonly storage: Storage,
    private readonly author: string,
  ) {
    this.trouble.setAttribute("role", "alert");
    this.message.setAttribute("role", "status");
    this.alsoChecked.type = "checkbox";
    this.alsoChecked.addEventListener("change", () => void this.turnTo(1));
    const head = ["case", "landmark", "timesMedian", "off"] as const;
    const titles = head.map((name) => make("th", { text: say(`column_${name}`), title: say(`about_${name}`) }));
    const table = make("table", { class: "points" }, make("thead", {}, make("tr", {}, ...titles, make("th", { text: say("column_answer") }))), this.rows);
    this.element.append(
      this.shape.element,
      make(
        "aside",
        { class: "panel" },
        make("div", { class: "head" }, make("h1", { text: say("qualityTitle") }), link("./", say("annotateLink"))),
        this.summary,
        this.trouble,
        this.message,
        make("label", { class: "check" }, this.alsoChecked, say("alsoChecked")),
        make("div", { class: "table" }, table),
        make("div", { class: "head" }, this.before, this.pages, this.after),
        make("div", { class: "head" }, link("../landmarks/quality/table", say("tableLink"), true), link("../landmarks/quality/specimens", say("specimensLink"), true)),
      ),
    );
  }

  private async turnTo(page: number): Promise<void> {
    put(this.trouble, "");
    put(this.message, "");
    await this.load(page);
  }

  async load(page: number): Promise<void> {
    const asked = ++this.asked;
    await this.doing(async () => {
      const found = await this.api.quality(page, this.alsoChecked.checked);
      if (asked !== this.asked) return;
      this.found = found;
      this.chosen = found.rows.find((r) => r.image === this.chosen?.image && r.landmark === this.chosen.landmark) ?? found.rows[0] ?? null;
      this.show();
    });
  }

  private show(): void {
    const { cases, points, page, pages, rows, shape, tooFew, unit } = this.found;
    const unseen = tooFew.length ? ` ${say("tooFewPoints", { names: tooFew.join(", ") })}` : "";
    put(this.summary, shape === null ? say("tooFewCases") : say("qualitySummary", { cases, points }) + unseen);
    put(this.pages, say("pageOf", { n: page, of: pages }));
    this.before.disabled = page <= 1;
    this.after.disabled = page >= pages;
    this.rows.replaceChildren(...rows.map((row) => this.row(row, unit)));
    this.shape.show(shape, this.chosen);
  }

  private row(row: QualityRow, unit: string): HTMLElement {
    const choose = button(row.image, "", () => this.choose(row));
    choose.classList.add("case");
    const mend = link(linkTo(row), say("openCaseLink"));
    mend.title = say("openCaseHelp");
    const isRight = row.checked === null;
    const right = button(say(isRight ? "rightButton" : "takeBackButton"), "", () => void this.say(row, isRight));
    right.title = say(isRight ? "rightHelp" : "takeBackHelp");
    const said = row.checked === null ? [right] : [make("span", { text: say("saidRight", { who: row.checked.author || say("somebody") }) }), right];
    const name = make("td", { class: "name", text: row.landmark });
    if (row.swappedWith) name.append(make("span", { class: "swapped", text: say("swappedWith", { name: row.swappedWith }) }));
    const made = make(
      "tr",
      {},
      make("td", {}, choose),
      name,
      make("td", { class: "number", text: `${row.timesMedian.toFixed(1)} ×` }),
      make("td", { class: "number", text: `${row.off.toFixed(row.off < 10 ? 1 : 0)} ${unit}` }),
      make("td", { class: "answer" }, mend, ...said),
    );
    made.classList.toggle("selected", row === this.chosen);
    return made;
  }

  private choose(row: QualityRow): void {
    this.chosen = row;
    const at = this.found.rows.indexOf(row);
    [...this.rows.children].forEach((one, i) => one.classList.toggle("selected", i === at));
    this.shape.show(this.found.shape, row);
  }

  /** A person has looked: the point is right where it is, or not after all. It becomes a revision, and the list is made anew. */
  private async say(row: QualityRow, isRight: boolean): Promise<void> {
    const at = this.found.rows.indexOf(row);
    for (const one of this.rows.querySelectorAll("button:not(.case)")) (one as HTMLButtonElement).disabled = true; // until the list is new
    put(this.message, "");
    put(this.trouble, "");
    const { image, landmark, revision } = row;
    this.keep({ image, landmark, revision, author: this.author, isRight, key: newKey(), landmarks: [], pixels: "" });
    if (await this.deliver()) await this.load(this.found.page); // what was refused stays readable
    else this.show();
    this.rows.children[Math.min(at, this.rows.children.length - 1)]?.querySelector<HTMLButtonElement>(".answer button")?.focus();
  }

  /** One that the browser has no space for is sent all the same. */
  private keep(answer: Answer): void {
    try {
      this.storage.putAnswer(answer);
    } catch (error) {
      if (!(error instanceof StorageFault)) throw error;
      put(this.trouble, say("cannotKeep", { why: error.message }));
    }
  }

  /** Send the answers that are kept; one stays until the server has it or has refused it, whatever becomes of the login. */
  async deliver(): Promise<boolean> {
    return this.doing(async () => {
      for (const kept of this.storage.answers()) {
        const about = { case: kept.image, landmark: kept.landmark };
        let answer = kept;
        try {
          if (!kept.landmarks.length) this.keep((answer = { ...kept, ...(await this.api.labelOf(kept.image)) }));
          await this.api.answer(answer);
          put(this.message, say(answer.isRight ? "saidRightOf" : "takenBackOf", about));
        } catch (error) {
          if (error instanceof Unreachable) throw new Unreachable(say("answersWait", { why: error.message }));
          if (!(error instanceof Refused)) throw error;
          put(this.trouble, say("answerRefused", { ...about, why: error.message }));
        }
        this.storage.forgetAnswer(answer.key);
      }
    });
  }

  /** Whether it went well; what did not is told. */
  private async doing(act: () => Promise<void>): Promise<boolean> {
    try {
      await act();
      return true;
    } catch (error) {
      if (error instanceof LoggedOut) await this.loginAgain();
      else put(this.trouble, error instanceof Error ? error.message : String(error));
      return false;
    }
  }

  /** A login that has ended is made anew on another page, which leads back here; one of somebody else is said. */
  private async loginAgain(): Promise<void> {
    const who = await this.api.who().catch(() => null);
    if (who === null || who.name === this.api.person) location.assign(LOGIN_FOR_QUALITY);
    else put(this.trouble, say("otherPerson", { who: who.name || say("nobody") }));
  }
}

async function begin(): Promise<void> {
  const api = new Api(new URL("../", location.href));
  const place = document.getElementById("app") ?? document.body;
  try {
    const who: Who = await api.who();
    const { task, storage } = await opened(api, who);
    document.title = `${task.name} · ${say("qualityTitle")}`;
    const page = new QualityPage(api, storage, who.name || storage.setting("author"));
    if (who.name) page.element.querySelector("aside")?.prepend(make("p", { class: "status", text: say("connectedAs", { who: who.name }) }));
    place.replaceChildren(page.element);
    await page.deliver();
    await page.load(1);
  } catch (error) {
    if (error instanceof LoggedOut) location.replace(LOGIN_FOR_QUALITY);
    else place.replaceChildren(make("p", { class: "trouble", text: error instanceof Error ? error.message : String(error) }));
  }
}

void begin();
