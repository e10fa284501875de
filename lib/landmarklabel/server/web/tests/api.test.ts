import { afterEach, expect, it, vi } from "vitest";
import { Api, ConflictError, type Submission } from "../src/api";
import { unset } from "../src/wire";
import { proposed, TASK } from "./example";

const ROWS = TASK.landmarks.map((l) => ({ name: l.name, status: "unset", position: null }));

/** The server's answers, one after the other; what was asked. */
function answering(...answers: [number, object][]): Request[] {
  const asked: Request[] = [];
  vi.stubGlobal("fetch", async (url: URL, init: RequestInit) => {
    asked.push(new Request(url, { ...init, signal: null }));
    const [status, content] = answers.shift() ?? [500, {}];
    return new Response(JSON.stringify(content), { status });
  });
  return asked;
}

const mine = (baseRevision: number, baseHash: string): Submission => ({
  image: "one", points: [proposed("a", 3, { state: "placed" }), ...TASK.landmarks.slice(1).map((l) => unset(l.name))],
  baseRevision, baseHash, author: "ann", key: "k", repeat: false, pixels: "",
});

afterEach(() => vi.unstubAllGlobals());

it("a submission says by its hash which revision it started from, and learns that of its own", async () => {
  const asked = answering([200, { revisions: [{ revision: 2, author: "bob", sha256: "seen", landmarks: ROWS }] }], [200, { revision: 3, sha256: "own", landmarks: ROWS }]);
  const api = new Api(new URL("http://server/"));
  const [newest] = await api.history("one", TASK);
  expect(newest?.hash).toBe("seen");
  expect(await api.save(mine(2, "seen"), TASK)).toEqual({ revision: 3, hash: "own" });
  expect(asked[1]?.headers.get("if-match")).toBe('"seen"');
});

it("one that started from nothing, or from what an earlier version kept, says none", async () => {
  const asked = answering([200, { revision: 1, sha256: "own", landmarks: ROWS }]);
  await new Api(new URL("http://server/")).save(mine(0, ""), TASK);
  expect(asked[0]?.headers.has("if-match")).toBe(false);
});

it("another version of the case comes with its hash", async () => {
  answering([409, { detail: "newer", current: { revision: 5, author: "bob", sha256: "theirs", landmarks: ROWS } }]);
  const refused = await new Api(new URL("http://server/")).save(mine(2, "seen"), TASK).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(ConflictError);
  expect((refused as ConflictError).current.hash).toBe("theirs");
});
