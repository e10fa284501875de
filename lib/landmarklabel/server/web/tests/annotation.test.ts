import { describe, expect, it } from "vitest";
import { Annotation, differences } from "../src/annotation";
import { proposed, TASK } from "./example";

const ALL = [proposed("a", 1), proposed("b", 20), proposed("c", 40), proposed("d", 60)];

describe("a person's points", () => {
  it("stay whatever is proposed, and take a flag only for the very place", () => {
    const open = new Annotation(TASK, "case", ALL);
    open.place("a", [5, 5]);
    open.markAbsent("b");
    open.accept("c");
    const before = open.points;
    open.follow(["a", "b", "c", "d"].map((n) => proposed(n, 90, { flagged: true })), "d");
    expect(open.points.slice(0, 3)).toEqual(before.slice(0, 3));
    expect(open.point("d").position).toEqual([90, 10]);
    open.follow([{ ...open.point("a"), flagged: true }, ...open.points.slice(1)], null);
    expect(open.point("a")).toMatchObject({ state: "placed", position: [5, 5], flagged: true });
  });

  it("count as edits, and proposals do not", () => {
    const open = new Annotation(TASK, "case");
    open.propose(ALL, null);
    expect([open.edits, open.isUnsent]).toEqual([0, false]);
    open.place("a", [2, 2]);
    open.undo();
    expect(open.edits).toBe(2); // taken back is a change of mind, and is sent
    open.undo();
    expect(open.edits).toBe(2); // of a proposal
    open.acknowledged(1, { revision: 7, hash: "h" });
    expect([open.isUnsent, open.baseRevision]).toEqual([true, 7]);
  });

  it("are not accepted where there is no position", () => {
    const open = new Annotation(TASK, "case");
    expect(open.accept("a")).toBe(false);
    expect(open.edits).toBe(0);
  });
});

describe("undo and redo", () => {
  it("have no limit and come back to the very beginning and end", () => {
    const open = new Annotation(TASK, "case", ALL);
    for (let i = 0; i < 500; i++) open.place("a", [i + 1000, 0]);
    const last = open.points;
    for (let i = 0; i < 500; i++) expect(open.undo()?.what).toBe("place");
    expect(open.points).toEqual(ALL);
    expect(open.undo()).toBeNull();
    for (let i = 0; i < 500; i++) open.redo();
    expect(open.points).toEqual(last);
    expect(open.redo()).toBeNull();
  });

  it("take all moves of one drag back at once, with what followed meanwhile", () => {
    const open = new Annotation(TASK, "case", ALL);
    open.place("a", [2, 2], false);
    const far = ALL.map((p) => ({ ...p, position: [77, 77] }));
    expect(open.follow(far, null)).toBe(3);
    open.place("a", [3, 3], false);
    open.place("a", [4, 4], true);
    expect(open.follow(far, null)).toBe(3); // since the drag began
    expect(open.point("b").position).toEqual([77, 77]);
    expect(open.undo()).toEqual({ what: "place", name: "a" });
    expect(open.points).toEqual(ALL);
  });

  it("know a drag that ended where a point cannot be as never begun", () => {
    const open = new Annotation(TASK, "case", ALL);
    open.place("a", [2, 2], false);
    open.takeMoveBack();
    expect(open.points).toEqual(ALL);
    expect(open.undo()).toBeNull();
  });

  it("forget what was undone when something else happens", () => {
    const open = new Annotation(TASK, "case", ALL);
    open.place("a", [2, 2]);
    open.undo();
    open.markAbsent("b");
    expect(open.redo()).toBeNull();
  });
});

it("names the flagged points first, then the least sure, then those without a place", () => {
  const open = new Annotation(TASK, "case", [
    proposed("a", 1, { error: 1 }),
    proposed("b", 1, { error: 9 }),
    { name: "c", state: "unset", position: null, error: null, flagged: false },
    proposed("d", 1, { error: 0.1, flagged: true }),
  ]);
  expect(open.doubtful()).toEqual(["d", "b", "a", "c"]);
  open.accept("d");
  expect(open.doubtful()).toEqual(["b", "a", "c"]);
});

it("finds where two versions differ, but for proposals of both", () => {
  const mine = [proposed("a", 1), proposed("b", 1, { state: "placed" }), proposed("c", 1, { state: "accepted" }), proposed("d", 1)];
  const theirs = [proposed("a", 2), proposed("b", 2), proposed("c", 1, { state: "placed" }), proposed("d", 3, { state: "placed" })];
  expect(differences(mine, theirs).map((p) => p.name)).toEqual(["b", "d"]);
});
