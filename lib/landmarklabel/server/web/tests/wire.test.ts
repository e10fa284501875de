import { expect, it } from "vitest";
import { points, rows } from "../src/wire";
import { proposed, TASK } from "./example";

it("reads what it sends, in the task's order", () => {
  const sent = TASK.landmarks.map((l, i) => proposed(l.name, i, { state: "placed", error: null }));
  expect(points(rows([...sent].reverse()), TASK)).toEqual(sent);
});

it("takes no case with a landmark that the task has gained since: what is sent back would unset it", () => {
  const more = [...TASK.landmarks.map((l) => proposed(l.name, 1)), proposed("e", 2, { state: "placed" })];
  expect(() => points(rows(more), TASK)).toThrow("the task has the landmark e by now: load this page again");
});
