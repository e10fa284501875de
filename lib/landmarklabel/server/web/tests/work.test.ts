import { beforeEach, describe, expect, it } from "vitest";
import { Busy, ConflictError, LoggedOut, Refused, Unreachable, type Api, type Submission } from "../src/api";
import { Storage } from "../src/storage";
import { Work } from "../src/work";
import { proposed, TASK } from "./example";
import { unset, type Frame, type Point, type Revision } from "../src/wire";

const FRAME: Frame = {
  size: [100, 100],
  toMm: [[1, 0, 0], [0, 1, 0]],
  toIndex: [[1, 0, 0], [0, 1, 0]],
  unit: "px",
  window: [0, 255],
  range: [0, 255],
  voxels: [1, 0],
  pixels: "hash",
  changed: false,
};

const NOT_LABELLED = "3 of its 4 points are not labelled: place, accept or call them absent";
const SAVED_IN_PART = `one is saved as revision 1; ${NOT_LABELLED}`;

/** A server in memory: saves once under each key; `fail` is thrown before or after it has saved. */
class Server {
  readonly saved = new Map<string, Revision[]>();
  readonly keys = new Map<string, number>();
  fail: Error | null = null;
  isAnswerLost = false;
  cannotSave = ""; // an image
  drafts = new Map<string, { points: Point[]; baseRevision: number; pixels: string; saved: string }>();
  moment = 0; // the server's clock
  next = ["two"];

  private check(): void {
    if (this.fail !== null) throw this.fail;
  }

  of(image: string): Revision[] {
    return this.saved.get(image) ?? [];
  }

  add(image: string, author: string, points: readonly Point[]): number {
    const all = this.of(image);
    this.saved.set(image, [...all, { revision: all.length + 1, author, created: "", hash: `${author} ${JSON.stringify(points)}`, points }]);
    return all.length + 1;
  }

  async save(what: Submission): Promise<{ revision: number; hash: string }> {
    this.check();
    if (what.image === this.cannotSave) throw new Busy("its label file cannot be written");
    const before = this.keys.get(what.key);
    if (before === undefined) {
      const current = this.of(what.image).at(-1);
      const isSame = (current?.revision ?? 0) === what.baseRevision && (!what.baseHash || current?.hash === what.baseHash);
      if (!isSame && current) throw new ConflictError("newer", current);
      this.keys.set(what.key, this.add(what.image, what.author, what.points));
      this.drafts.delete(what.image);
    }
    if (this.isAnswerLost) {
      this.isAnswerLost = false;
      throw new Unreachable("lost");
    }
    const revision = this.keys.get(what.key) ?? 0;
    return { revision, hash: this.of(what.image)[revision - 1]?.hash ?? "" };
  }

  api(): Api {
    const answers = {
      who: async () => (this.check(), { name: "ann", roles: [] }),
      task: async () => (this.check(), structuredClone(TASK)),
      info: async () => (this.check(), { models: ["scn"], strategies: { first: "" }, training: {} }),
      cases: async () => (this.check(), []),
      nextCase: async () => (this.check(), this.next.length ? { image: this.next.shift() ?? "", reason: "", repeat: false } : null),
      history: async (image: string) => (this.check(), this.of(image)),
      frame: async () => (this.check(), FRAME),
      picture: async () => (this.check(), { blob: new Blob(), step: 1 }),
      predict: async () => (this.check(), { points: [], next: null, origin: "none", secondPass: false, cautions: [] }),
      update: async (_: string, __: string, all: readonly Point[]) => (this.check(), { points: all, next: null, origin: "model", secondPass: false, cautions: [] }),
      save: (what: Submission) => this.save(what),
      draft: async (image: string) => (this.check(), this.drafts.get(image) ?? null),
      keepDraft: async (what: Submission) => {
        this.check();
        const saved = `at ${++this.moment}`;
        this.drafts.set(what.image, { points: [...what.points], baseRevision: what.baseRevision, pixels: what.pixels, saved });
        return saved;
      },
      dropDraft: async (image: string) => void this.drafts.delete(image),
    };
    return answers as unknown as Api;
  }
}

let server: Server;

async function begun(image = ""): Promise<Work> {
  const work = new Work(server.api(), new Storage("/s/"), TASK, () => undefined);
  await work.start({ name: "ann", roles: [] });
  if (image) await work.openCase(image);
  return work;
}

/** A new tab: nothing but what the browser has kept. */
const again = (): Promise<Work> => begun();

const turn = (): Promise<void> => new Promise((done) => setTimeout(done, 0));

beforeEach(() => {
  localStorage.clear();
  server = new Server();
});

describe("nothing is lost", () => {
  it("when the tab is closed in the moment after an edit", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    const back = await again();
    expect(back.open?.image).toBe("one");
    expect(back.open?.point("a")).toMatchObject({ state: "placed", position: [3, 4] });
    expect(back.message).toContain("with your changes that were not sent");
  });

  it("when the server is away while a case is submitted, and the tab is closed then", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.fail = new Unreachable("gone");
    await work.submit("first");
    expect([work.server, work.waiting().length]).toEqual(["away", 1]);
    server.fail = null;
    const back = await again();
    expect(server.of("one").map((r) => r.points[0]?.position)).toEqual([[3, 4]]);
    expect(back.waiting()).toEqual([]);
  });

  it("when an answer is lost: it is sent again and saved once", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.isAnswerLost = true;
    await work.submit("first");
    expect(work.waiting().length).toBe(1);
    await work.tick(Date.now() + 60_000);
    expect(work.waiting()).toEqual([]);
    expect(server.of("one").length).toBe(1);
  });

  it("when the login has ended: it waits, and goes out after the next login", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.fail = new LoggedOut("ended");
    await work.submit("first");
    expect(work.server).toBe("logged out");
    server.fail = null;
    await work.start({ name: "ann", roles: [] });
    expect(server.of("one").length).toBe(1);
  });

  it("when a case was edited further while its submission was under way", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.fail = new Unreachable("gone");
    await work.submit("first");
    work.place("b", [5, 6]);
    await work.submit("first");
    server.fail = null;
    await work.deliver();
    expect(server.of("one").map((r) => r.points.filter((p) => p.state === "placed").length)).toEqual([1, 2]);
    expect(work.unsent()).toEqual([]);
  });

  it("when somebody else sits down before it is sent again: it stays whose it is", async () => {
    const work = await begun("one");
    work.setAuthor("ann");
    work.place("a", [3, 4]);
    server.fail = new Unreachable("gone");
    await work.submit("first");
    work.setAuthor("bob");
    server.fail = null;
    await work.sendAgain(work.unsent()[0]!);
    expect(server.of("one").map((r) => r.author)).toEqual(["ann"]);
  });

  it("when another case opens: it is listed, and opens with its points", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    await work.openCase("two");
    expect(work.unsent()).toMatchObject([{ image: "one", why: "changed, not submitted" }]);
    await work.openCase("one");
    expect(work.open?.point("a").position).toEqual([3, 4]);
  });

  it("when the browser keeps nothing: it is said, and the case goes out all the same", async () => {
    const work = await begun("one");
    const full = (): never => {
      throw new Error("quota");
    };
    const was = Object.getPrototypeOf(localStorage).setItem as () => void;
    Object.getPrototypeOf(localStorage).setItem = full;
    try {
      work.place("a", [3, 4]);
      expect(work.trouble).toContain("only in this tab");
      await work.submit("first");
    } finally {
      Object.getPrototypeOf(localStorage).setItem = was;
    }
    expect(server.of("one").length).toBe(1);
  });

  it("when the browser keeps nothing and the server is away: as long as the page is there, nothing is missing", async () => {
    const was = Object.getPrototypeOf(localStorage).setItem as () => void;
    const work = await begun("one");
    Object.getPrototypeOf(localStorage).setItem = (): never => {
      throw new DOMException("the value of 'case once another' exceeded the quota", "QuotaExceededError");
    };
    try {
      work.place("a", [3, 4]);
      expect(work.trouble).toBe("Your points are only in this tab: the browser keeps nothing (it has no space left). Leave it open until everything is submitted and saved.");
      server.fail = new Unreachable("gone");
      await work.submit("first");
      expect(work.message).toBe("the server does not answer; leave this tab open: your work is only here, and is sent later");
      server.fail = null;
      await work.openCase("two");
      expect(work.trouble).toContain("only in this tab");
      work.place("b", [5, 6]);
      await work.openCase("one");
      expect(work.open?.point("a").position).toEqual([3, 4]);
      expect(work.unsent().map((u) => u.image)).toEqual(["one", "two"]);
      await work.deliver();
    } finally {
      Object.getPrototypeOf(localStorage).setItem = was;
    }
    expect(server.of("one").length).toBe(1);
    expect(work.open?.image).toBe("two"); // the next one, as it was left
    expect(work.open?.point("b").position).toEqual([5, 6]);
    work.place("c", [7, 8]);
    await work.openCase("one");
    expect(work.trouble).toBe("");
  });

  it("when the server cannot save one case: the others go out, and of that one the order stays", async () => {
    const work = await begun("one");
    server.cannotSave = "one";
    work.place("a", [3, 4]);
    await work.submit("first");
    expect(work.message).toBe("its label file cannot be written");
    work.place("b", [5, 6]);
    await work.submit("first");
    await work.openCase("two");
    work.place("a", [1, 2]);
    await work.submit("first");
    expect([server.of("one").length, server.of("two").length]).toEqual([0, 1]);
    server.cannotSave = "";
    await work.deliver();
    expect(server.of("one").map((r) => r.points.filter((p) => p.state === "placed").length)).toEqual([1, 2]);
    expect(work.unsent()).toEqual([]);
  });

  it("when people have to log in from now on: what was done before is nobody's until somebody says it is theirs", async () => {
    const of = async (person: string, begins = ""): Promise<Work> => {
      const work = new Work(server.api(), Storage.of("/s/", "id", person), TASK, () => undefined);
      await work.start({ name: person, roles: [] });
      if (begins) await work.openCase(begins);
      return work;
    };
    const before = await of("", "one");
    before.setAuthor("bob");
    before.place("a", [3, 4]);
    server.fail = new LoggedOut("a token is needed");
    await before.submit("first");
    server.fail = null;
    await before.openCase("two");
    before.place("b", [5, 6]);
    before.storage.putAnswer({ image: "one", landmark: "a", revision: 1, author: "bob", isRight: true, key: "k", landmarks: [], pixels: "" });
    const ann = await of("Ann");
    expect([ann.unsent(), ann.storage.answers(), ann.storage.nobodys]).toEqual([[], [], 4]); // a submission, its case, another, an answer
    expect(server.of("one")).toEqual([]);
    const bob = await of("Bob B");
    bob.storage.takeOver();
    expect(bob.unsent().map((u) => [u.image, u.entry?.state])).toEqual([["one", "refused"], ["two", undefined]]);
    expect([bob.storage.answers().length, bob.storage.nobodys, ann.storage.nobodys]).toEqual([1, 0, 0]);
    expect(server.of("one")).toEqual([]); // until Bob says to send it
    await bob.sendAgain(bob.unsent()[0]!);
    expect(server.of("one").map((r) => r.author)).toEqual(["Bob B"]);
    await bob.openCase("two");
    expect(bob.open?.point("b").position).toEqual([5, 6]);
  });

  it("when somebody else's submission of a case is taken over that one works on oneself: both stay", async () => {
    const before = new Work(server.api(), Storage.of("/s/", "id", ""), TASK, () => undefined);
    await before.start({ name: "", roles: [] });
    await before.openCase("one");
    for (const [k, name] of (["a", "b", "c"] as const).entries()) before.place(name, [k, 4]);
    server.fail = new Unreachable("gone");
    await before.submit("first");
    server.fail = null;
    const ann = new Work(server.api(), Storage.of("/s/", "id", "ann"), TASK, () => undefined);
    await ann.start({ name: "ann", roles: [] });
    await ann.openCase("one");
    ann.place("d", [9, 9]);
    ann.takeOver();
    expect(ann.message).toContain("1 taken over: see Unsent. 1 stay: you have the same case unsent yourself");
    await ann.openCase("two");
    expect(ann.unsent().map((u) => [u.image, u.entry?.state])).toEqual([["one", "refused"], ["one", undefined]]);
    await ann.sendAgain(ann.unsent()[0]!);
    expect(server.of("one").map((r) => r.points.filter((p) => p.state === "placed").length)).toEqual([3]);
    expect(ann.unsent().map((u) => [u.image, u.entry?.state])).toEqual([["one", undefined]]);
    await ann.openCase("one");
    expect(ann.open?.point("d").position).toEqual([9, 9]);
    expect(ann.differing().length).toBe(4); // and what was sent is beside it
  });

  it("when an earlier version kept it: a name with a space has it, and nobody whose name begins so", async () => {
    const earlier = new Storage("/s/ id Ann B");
    earlier.keepCase({ image: "one", points: TASK.landmarks.map((l) => proposed(l.name, 8, { state: "placed" })), baseRevision: 0, baseHash: "", reason: "", repeat: false, edits: 2, delivered: 0, pixels: "", copy: "", draftSaved: "" });
    const ann = Storage.of("/s/", "id", "Ann");
    ann.clear();
    expect(ann.unsent()).toEqual([]);
    expect(Storage.of("/s/", "id", "Ann B").unsent().map((k) => k.image)).toEqual(["one"]);
  });

  it("when there is space for a small thing and not for a large one: the small one is kept", async () => {
    const was = Object.getPrototypeOf(localStorage).setItem as (name: string, value: string) => void;
    let most = 1000;
    Object.getPrototypeOf(localStorage).setItem = function (this: globalThis.Storage, name: string, value: string): void {
      if (value.length > most) throw new Error("quota");
      was.call(this, name, value);
    };
    try {
      const storage = new Storage("/s/");
      expect(() => storage.set("large", "x".repeat(2000))).toThrow("quota");
      storage.set("small", "y");
      expect([new Storage("/s/").setting("small"), storage.setting("large").length, storage.fault]).toEqual(["y", 2000, "quota"]);
      most = 5000;
      storage.dropCase("any", false); // there is space again
      expect([new Storage("/s/").setting("large").length, storage.fault]).toEqual([2000, ""]);
    } finally {
      Object.getPrototypeOf(localStorage).setItem = was;
    }
  });

  it("when the open case is opened once more, and worked on until that has come", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    let come: () => void = () => undefined;
    Object.assign(work.api, { draft: () => new Promise((done) => (come = () => done(null))) });
    const opening = work.openCase("one");
    await turn();
    work.place("b", [5, 6]);
    come();
    await opening;
    expect([work.open?.point("a").position, work.open?.point("b").position]).toEqual([[3, 4], [5, 6]]);
    work.undo(); // its steps are kept too
    expect([work.open?.point("a").position, work.open?.point("b").position]).toEqual([[3, 4], null]);
    expect((await again()).open?.point("a").position).toEqual([3, 4]);
  });

  it("when the server was restored from an older copy, and another revision has the number that one started from", async () => {
    const placed = (x: number) => TASK.landmarks.map((l) => proposed(l.name, x, { state: "placed" as const }));
    server.add("one", "zoe", placed(1));
    server.add("one", "ann", placed(2));
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.saved.set("one", server.of("one").slice(0, 1));
    server.add("one", "bob", placed(50));
    await work.submit("first");
    expect(server.of("one").map((r) => r.author)).toEqual(["zoe", "bob"]);
    expect(work.unsent()[0]?.why).toBe("the study was restored from an older copy: revision 2 is bob's now, and 4 points differ, drawn as diamonds");
    const back = await again();
    expect([back.conflict?.author, back.differing().length]).toEqual(["bob", 4]);
    await back.submitMine("first");
    expect(server.of("one").map((r) => [r.author, r.points[0]?.position])).toEqual([["zoe", [1, 10]], ["bob", [50, 10]], ["ann", [3, 4]]]);
    expect(back.unsent()).toEqual([]);
  });

  it("when a second reading arrives: that is what is said, not the number of the label's revision", async () => {
    server.add("one", "bob", TASK.landmarks.map((l) => proposed(l.name, 5, { state: "placed" as const })));
    const work = await begun();
    Object.assign(work.api, { save: async () => ({ revision: 1, hash: "" }) });
    server.next = [];
    await work.openCase("one", true);
    work.place("a", [3, 4]);
    await work.submit("first");
    expect(work.message).toContain("the second reading of one is saved; 3 of its 4 points are not labelled");
  });

  it("when a draft of what was done meanwhile goes with the submission before it: it is sent again", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    const { go } = slowly(work);
    const submitted = work.submit("first");
    await turn();
    work.place("b", [5, 6]);
    await work["sendDraft"](work.open!); // as some seconds later
    expect(server.drafts.get("one")?.points[1]?.position).toEqual([5, 6]);
    go();
    await submitted;
    await turn();
    expect(server.drafts.get("one")?.points[1]?.position).toEqual([5, 6]);
  });

  it("when something is discarded while it is on its way: it is not said to be gone", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    const { go } = slowly(work);
    const submitted = work.submit("first");
    await turn();
    const [waits] = work.unsent();
    if (waits === undefined) throw new Error("nothing waits");
    await work.discard(waits);
    expect([work.message, work.unsent().length]).toEqual(["one is on its way to the server: it cannot be discarded now", 1]);
    go();
    await submitted;
    expect([server.of("one").length, work.unsent().length]).toEqual([1, 0]);
  });

  it.each([Busy, Refused])("when a next case is refused: it is still said that this one is saved, once", async (Kind) => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    Object.assign(work.api, { nextCase: () => Promise.reject(new Kind("this computer holds its share of the open cases")) });
    await work.submit("first");
    expect(work.message).toBe(`${SAVED_IN_PART}. this computer holds its share of the open cases`);
    work.place("b", [5, 6]);
    Object.assign(work.api, { keepDraft: () => Promise.reject(new Busy("the disk is full")) });
    await work["sendDraft"](work.open!);
    expect(work.message).toBe("the disk is full");
  });

  /** What is sent stays on its way until `go`. */
  function slowly(work: Work): { go: () => void } {
    const gates: (() => void)[] = [];
    const save = work.api.save.bind(work.api);
    Object.assign(work.api, { save: (what: Submission) => new Promise<void>((done) => gates.push(done)).then(() => save(what, TASK)) });
    return { go: () => gates.splice(0).forEach((open) => open()) };
  }

  it("when the second of two that wait is discarded while the first is on its way: it is not sent", async () => {
    const work = await begun("one");
    server.fail = new Unreachable("gone");
    for (const image of ["one", "two"]) {
      server.fail = null;
      await work.openCase(image);
      work.place("a", [3, 4]);
      server.fail = new Unreachable("gone");
      await work.submit("first");
    }
    server.fail = null;
    const { go } = slowly(work);
    work.server = "connected";
    const delivered = work.deliver();
    await turn();
    await work.discard(work.unsent().find((u) => u.image === "two")!);
    expect(work.message).toBe("two: discarded");
    go();
    await delivered;
    expect([server.of("one").length, server.of("two").length, work.waiting().length]).toEqual([1, 0, 0]);
  });

  it("when a case is opened once more while it is on its way: nobody is in conflict with themselves", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    const { go } = slowly(work);
    const submitted = work.submit("first");
    await turn();
    work.place("b", [5, 6]);
    let come: () => void = () => undefined;
    Object.assign(work.api, { draft: () => new Promise((done) => (come = () => done(null))) });
    const opening = work.openCase("one");
    await turn();
    go();
    await submitted;
    Object.assign(work.api, { draft: async () => null });
    come(); // after the submission has arrived: what the server said of the case before that is old
    await opening;
    expect([work.conflict, work.open?.baseRevision, work.open?.isUnsent]).toEqual([null, 1, true]);
    const again = work.submit("first");
    await turn();
    go();
    await again;
    expect([server.of("one").length, work.unsent().length]).toEqual([2, 0]);
  });

  it("when a submission arrives while its case opens once more: the case opens as it was submitted", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    const { go } = slowly(work);
    server.next = []; // so that no other case opens
    const submitted = work.submit("first");
    await turn();
    let come: () => void = () => undefined;
    const { draft } = work.api;
    Object.assign(work.api, { draft: () => new Promise((done) => (come = () => done(null))) });
    const opening = work.openCase("one");
    await turn();
    go();
    await submitted;
    Object.assign(work.api, { draft });
    come(); // the answers are older than the submission
    await opening;
    expect([work.conflict, work.open?.baseRevision, work.open?.point("a").position]).toEqual([null, 1, [3, 4]]);
  });

  it("when it is opened once more and submitted again: once is enough", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    const { go } = slowly(work);
    const submitted = work.submit("first");
    await turn();
    await work.openCase("one");
    await work.submit("first");
    go();
    await submitted;
    expect([work.conflict, server.of("one").length, work.unsent().length]).toEqual([null, 1, 0]);
  });

  it("when the server has no revision of a case any more: that is said", async () => {
    server.add("one", "ann", TASK.landmarks.map((l) => proposed(l.name, 2, { state: "placed" as const })));
    const work = await begun("one");
    work.place("a", [3, 4]);
    const gone: Revision = { revision: 0, author: "", created: "", hash: "", points: TASK.landmarks.map((l) => unset(l.name)) };
    Object.assign(work.api, { save: () => Promise.reject(new ConflictError("", gone)) });
    await work.submit("first");
    expect(work.unsent()[0]?.why).toBe("the study was restored from an older copy, and the server has no revision of this case any more: “Submit mine” saves yours");
    expect(work.isThereTheirs).toBe(false);
  });

  it("when the server goes away right after it has saved a case: that it is saved is said again when it is back", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    Object.assign(work.api, { nextCase: () => Promise.reject((server.fail = new Unreachable("gone"))) });
    await work.submit("first");
    expect(work.message).toBe(`${SAVED_IN_PART}. the server does not answer; your work is kept in this browser and sent later`);
    server.fail = null;
    await work.tick(Date.now() + 60_000);
    expect(work.message).toBe(`${SAVED_IN_PART}. the server answers again`);
  });

  it("on another computer: the draft is there", async () => {
    const work = await begun("one");
    server.drafts.set("one", { points: TASK.landmarks.map((l) => proposed(l.name, 8, { state: "placed" })), baseRevision: 0, pixels: "", saved: "before" });
    await work.openCase("two");
    await work.openCase("one");
    expect(work.message).toContain("from another browser");
    expect(work.open?.isUnsent).toBe(true);
  });
});

describe("two browsers of one person", () => {
  const elsewhere = (x: number) => ({ points: TASK.landmarks.map((l) => proposed(l.name, x, { state: "placed" as const })), baseRevision: 0, pixels: "", saved: "later" });

  const changedInBoth = async (): Promise<Work> => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    await work.openCase("two");
    server.drafts.set("one", elsewhere(8));
    await work.openCase("one");
    return work;
  };

  it("own drafts are no second version", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    await work.openCase("two"); // which sends a draft of the first
    expect(server.drafts.size).toBe(1);
    await work.openCase("one");
    expect(work.conflict).toBe(null);
    work.place("b", [5, 6]);
    expect((await again()).conflict).toBe(null);
  });

  it("what was done in the other one since is shown, and taken or not", async () => {
    const work = await changedInBoth();
    expect(work.open?.point("a").position).toEqual([3, 4]);
    expect(work.differing().map((p) => p.name)).toEqual(["a", "b", "c", "d"]);
    work.place("b", [5, 6]);
    await work.openCase("two");
    expect(server.drafts.get("one")?.saved).toBe("later"); // not written over before somebody has decided
    await work.openCase("one");
    work.takeTheirs("a");
    expect(work.open?.point("a").position).toEqual([8, 10]);
    work.takeTheirs(null);
    expect([work.open?.point("b").position, work.conflict, work.open?.isUnsent]).toEqual([[8, 10], null, true]);
    await work.submit("first");
    expect(server.of("one").map((r) => r.points.map((p) => p.position?.[0]))).toEqual([[8, 8, 8, 8]]);
  });

  it("or one's own is submitted", async () => {
    const work = await changedInBoth();
    await work.submitMine("first");
    expect(server.of("one").map((r) => r.points[0]?.position)).toEqual([[3, 4]]);
    expect(work.unsent()).toEqual([]);
  });
});

describe("two people", () => {
  it("see both versions; the next case waits until one has decided", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.add("one", "bob", [proposed("a", 50, { state: "placed" }), ...TASK.landmarks.slice(1).map((l) => proposed(l.name, 1))]);
    await work.submit("first");
    expect(work.open?.image).toBe("one");
    expect([work.conflict?.author, work.isThereTheirs]).toEqual(["bob", true]);
    expect(work.differing().map((p) => p.name)).toEqual(["a"]);
    await work.submit("first");
    expect(work.message).toContain("look at both versions first");
    await work.submitMine("first");
    expect(server.of("one").map((r) => r.author)).toEqual(["bob", "ann"]);
    expect(work.unsent()).toEqual([]);
  });

  it("are told apart also where one has accepted what is only proposed to the other", async () => {
    const work = await begun("one");
    const everywhere = (state: Point["state"]): Point[] => TASK.landmarks.map((l) => proposed(l.name, 5, { state }));
    Object.assign(work.api, { predict: async () => ({ points: everywhere("predicted"), next: null, origin: "model", secondPass: false, cautions: [] }) });
    await work.predict();
    work.accept("a");
    server.add("one", "bob", everywhere("accepted"));
    await work.submit("first");
    expect(work.differing().map((p) => p.name)).toEqual(["b", "c", "d"]);
    work.takeTheirs("b");
    expect(work.open?.point("b").state).toBe("accepted");
  });

  it("may take the other version, and take that back", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    server.add("one", "bob", TASK.landmarks.map((l) => proposed(l.name, 50, { state: "placed" })));
    await work.submit("first");
    work.takeTheirs(null);
    expect(work.open?.point("a").position).toEqual([50, 10]);
    expect(work.unsent()).toEqual([]);
    work.undo();
    expect(work.open?.point("a").position).toEqual([3, 4]);
    expect(work.open?.isUnsent).toBe(true);
  });
});

it("keeps what is refused with its reason until somebody has decided", async () => {
  const work = await begun("one");
  work.place("a", [3, 4]);
  server.fail = new Refused("the image was changed");
  await work.submit("first");
  server.fail = null;
  expect(work.unsent()).toMatchObject([{ image: "one", why: "the image was changed" }]);
  await work.tick(Date.now() + 60_000); // it is not sent by itself
  expect(server.of("one")).toEqual([]);
  const [what] = work.unsent();
  if (what) await work.sendAgain(what);
  expect(server.of("one").length).toBe(1);
});

it("sends a case once however often the button is pressed", async () => {
  const work = await begun("one");
  work.place("a", [3, 4]);
  await Promise.all([work.submit("first"), work.submit("first"), work.submit("first")]);
  await work.submit("first"); // of the next case, which nobody has touched: that is meant
  expect(server.of("one").length).toBe(1);
  expect([work.conflict, work.unsent()]).toEqual([null, []]); // nor does it meet itself
});

it("holds one case however often the next one is asked for", async () => {
  server.next = ["two", "three"];
  const work = await begun();
  await Promise.all([work.nextCase("first"), work.nextCase("first")]);
  expect([work.open?.image, server.next]).toEqual(["two", ["three"]]);
  await work.nextCase("first");
  expect(work.open?.image).toBe("three");
});

it("keeps that a drag was taken back, and puts nothing where there is no image", async () => {
  const work = await begun("one");
  work.place("a", [3, 4], false);
  expect(work.place("a", [500, 4], true)).toBe(false);
  expect((await again()).open?.point("a").state).toBe("unset");
  work.frame = null;
  expect(work.place("a", [3, 4])).toBe(false);
  expect(work.open?.point("a").state).toBe("unset");
});

it("drafts the case that is left, and not the one that opens", async () => {
  const work = await begun("one");
  work.place("a", [3, 4]);
  await work.openCase("two");
  await work.openCase("one");
  expect([...server.drafts.keys()]).toEqual(["one"]);
});

it("does not write over a draft that it could not read", async () => {
  const work = await begun("two");
  work.api.draft = async () => {
    throw new Busy("the server's disk is full");
  };
  await work.openCase("one");
  expect(work.open?.image).toBe("two");
  expect(work.message).toBe("the server's disk is full");
});

it("writes nothing once another tab has taken over", async () => {
  const work = await begun("one");
  work.deactivate();
  const before = JSON.stringify(localStorage);
  work.place("a", [3, 4]);
  await work.submit("first");
  expect(JSON.stringify(localStorage)).toBe(before);
  expect(server.of("one")).toEqual([]);
});

it("keeps points of landmarks that the task has given up, and says so", async () => {
  const work = await begun("one");
  work.place("a", [3, 4]);
  const fewer = { ...TASK, landmarks: TASK.landmarks.slice(1) };
  const after = new Work(server.api(), new Storage("/s/"), fewer, () => undefined);
  await after.start({ name: "ann", roles: [] });
  expect(after.trouble).toContain("a: the task has no such landmarks any more");
  after.place("b", [1, 1]);
  expect(Object.keys({ ...localStorage }).filter((key) => key.includes("gone one"))).toHaveLength(1);
});

it("forgets a case that is discarded, with what was kept of it", async () => {
  const work = await begun("one");
  work.place("a", [3, 4]);
  server.fail = new Refused("no");
  await work.submit("first");
  server.fail = null;
  await work.openCase("two");
  const [what] = work.unsent();
  if (what) await work.discard(what);
  expect(work.unsent()).toEqual([]);
  await work.openCase("one");
  expect(work.open?.point("a").state).toBe("unset");
});

it("refuses a point outside of the image where the person looks", async () => {
  const work = await begun("one");
  expect(work.place("a", [99.6, 4])).toBe(false);
  expect(work.place("a", [99.4, -0.5])).toBe(true);
  expect(work.open?.edits).toBe(1);
});

describe("a prediction", () => {
  it("comes with what is to be known of the model first", async () => {
    const work = await begun("one");
    const answer = { points: [], next: null, origin: "model", secondPass: false, cautions: ["it was hardly trained", "it was never measured"] };
    Object.assign(work.api, { predict: async () => answer });
    await work.predict();
    expect(work.message).toBe("predicted; it was hardly trained; it was never measured");
  });
});

describe("a reading without proposals", () => {
  it.each([["a second reading", true], ["any, where a person wants it so", false]])("is %s", async (_, isRepeat) => {
    const work = await begun();
    if (!isRepeat) work.keepSetting("withoutProposals", "yes");
    await work.openCase("one", isRepeat);
    let asked = 0;
    const count = async (): Promise<never> => {
      asked++;
      throw new Error("nobody asked for proposals");
    };
    Object.assign(work.api, { predict: count, update: count });
    await work.predict();
    expect(work.message).toContain("nothing is proposed");
    work.place("a", [3, 4]);
    await turn();
    expect(asked).toBe(0);
    expect(work.open?.points.filter((p) => p.position !== null).map((p) => p.name)).toEqual(["a"]);
    work.keepSetting("withoutProposals", "no");
    await work.openCase("two");
    work.place("a", [3, 4]);
    await turn();
    expect(asked).toBe(1);
  });
});

describe("a reading without proposals that is asked for while an answer is on its way", () => {
  it.each(["predict", "update"])("takes nothing from it: %s", async (route) => {
    const work = await begun("one");
    let come: () => void = () => undefined;
    const answer = async (_: string, __: string, all: readonly Point[]) => {
      await new Promise<void>((done) => (come = done));
      return { points: all.map((p) => proposed(p.name, 5)), next: null, origin: "model", secondPass: false, cautions: [] };
    };
    Object.assign(work.api, { [route]: answer });
    if (route === "update") work.place("a", [3, 4]);
    else void work.predict();
    await turn();
    work.keepSetting("withoutProposals", "yes");
    come();
    await turn();
    expect(work.open?.points.filter((p) => p.state === "predicted")).toEqual([]);
  });
});

describe("the study's task", () => {
  it("is looked at with each case: where another program has changed it, numbers here are old, and that is said", async () => {
    const work = await begun("one");
    await turn();
    expect(work.outdated).toBe("");
    Object.assign(work.api, { task: async () => ({ ...structuredClone(TASK), mmPerPixel: 0.25 }) });
    await work.openCase("one");
    await turn();
    expect(work.outdated).toContain("Load this page again");
  });
});

describe("accept all", () => {
  it("leaves what a person placed told apart from what was proposed", async () => {
    const work = await begun("one");
    work.place("a", [3, 4]);
    work.open?.propose([proposed("a", 1), proposed("b", 2), proposed("c", 3), proposed("d", 4)], null);
    work.acceptAll();
    expect(work.open?.points.map((p) => p.state)).toEqual(["placed", "accepted", "accepted", "accepted"]);
  });

  it("leaves what contradicts the others to a person, and says which", async () => {
    const work = await begun("one");
    work.open?.propose([proposed("a", 1), proposed("b", 2, { flagged: true }), proposed("c", 3), proposed("d", 4)], null);
    work.acceptAll();
    expect(work.open?.points.map((p) => p.state)).toEqual(["accepted", "predicted", "accepted", "accepted"]);
    expect([work.open?.point("b").flagged, work.message]).toEqual([true, "the others are accepted; contradicting the rest: b; look at each (N)"]);
    work.accept("b");
    expect(work.open?.point("b").state).toBe("accepted");
  });
});

describe("an answer to what is no longer said", () => {
  /** Answers wait until `go` is called; each is as the server's: absent stays absent. */
  function waiting(work: Work, route: "update" | "predict"): { go: () => void; asked: () => number } {
    const gates: (() => void)[] = [];
    let asked = 0;
    const answer = async (_: string, __: string, all: readonly Point[]) => {
      asked++;
      await new Promise<void>((done) => gates.push(done));
      return { points: all.map((p) => (p.state === "absent" ? p : proposed(p.name, 5))), next: null, origin: "model", secondPass: false, cautions: [] };
    };
    Object.assign(work.api, { [route]: answer });
    return { go: () => gates.splice(0).forEach((open) => open()), asked: () => asked };
  }
  it.each(["update", "predict"] as const)("does not call a point absent again that was unlocked meanwhile: %s", async (route) => {
    const work = await begun("one");
    const { go, asked } = waiting(work, route);
    work.markAbsent("a");
    if (route === "predict") void work.predict();
    await turn();
    work.unlock("a");
    expect(work.open?.point("a").state).toBe("unset");
    const before = asked();
    go();
    await turn();
    expect(work.open?.point("a").state).toBe("unset");
    expect(asked()).toBe(before + 1); // asked again, with what is said now
    go();
    await turn();
    expect(work.open?.point("a").state).toBe("predicted");
    expect(work.place("a", [5, 5])).toBe(true);
  });

  it.each(["update", "predict"] as const)("does not change a case that is submitted, nor what is said of it: %s", async (route) => {
    const work = await begun("one");
    const { go } = waiting(work, route);
    work.place("a", [3, 4]);
    if (route === "predict") void work.predict();
    await turn();
    let choose: () => void = () => undefined;
    Object.assign(work.api, { nextCase: () => new Promise((done) => (choose = () => done({ image: "two", reason: "", repeat: false }))) });
    const submitted = work.submit("first");
    await turn();
    go(); // after it is saved, before the next case opens
    await turn();
    expect([work.open?.point("b").state, work.open?.isUnsent]).toEqual(["unset", false]);
    choose();
    await submitted;
    expect([work.open?.image, work.message]).toEqual(["two", SAVED_IN_PART]);
  });

  it("does not move the others after what was undone, nor says so", async () => {
    const work = await begun("one");
    const { go, asked } = waiting(work, "update");
    work.place("a", [3, 4]);
    work.place("a", [8, 9]); // while the first answer is on its way
    await turn();
    work.undo();
    work.undo();
    go();
    await turn();
    expect([asked(), work.open?.points.map((p) => p.state)]).toEqual([1, ["unset", "unset", "unset", "unset"]]);
    expect(work.message).toBe("undone: place a");
    work.place("b", [1, 2]);
    await turn();
    expect(asked()).toBe(2);
  });

  it.each(["undone", "taken back"])("lets them follow what still stands when a later step is %s", async (how) => {
    const work = await begun("one");
    const { go, asked } = waiting(work, "update");
    work.place("a", [3, 4]);
    work.place("b", [8, 9], how === "undone"); // while the first answer is on its way
    await turn();
    if (how === "undone") work.undo();
    else work.takeMoveBack();
    go(); // what it says is of a step that is gone
    await turn();
    expect(work.open?.point("c").state).toBe("unset");
    go();
    await turn();
    expect([asked(), ...["a", "b", "c"].map((name) => work.open?.point(name).state)]).toEqual([2, "placed", "predicted", "predicted"]);
  });

  it.each(["redone", "followed by another kind of step"])("lets them follow a step that is %s", async (how) => {
    const work = await begun("one");
    const { go, asked } = waiting(work, "update");
    work.place("a", [3, 4]);
    await turn();
    if (how === "redone") {
      work.undo();
      work.redo();
    } else {
      work.open?.propose(TASK.landmarks.map((l, i) => proposed(l.name, i)), null);
      work.accept("b");
      work.accept("c");
      work.undo();
    }
    go(); // what it says is of before
    await turn();
    go();
    await turn();
    expect([asked(), work.open?.point("a").state, work.open?.point("d").state]).toEqual([2, "placed", "predicted"]);
  });
});
