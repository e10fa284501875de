import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Tiles, type Part, type Placing } from "../src/tiles";

const SIZE = [20_000, 10_000] as const;

/** Requests that are answered when a test says so. */
class Server {
  readonly asked: { part: Part; signal: AbortSignal; answer: () => void; fail: () => void }[] = [];

  fetch = (part: Part, signal: AbortSignal): Promise<Blob> =>
    new Promise((resolve, reject) => {
      this.asked.push({ part, signal, answer: () => resolve(new Blob()), fail: () => reject(new Error("away")) });
      signal.addEventListener("abort", () => reject(new Error("aborted")));
    });
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** A screen of 1000 × 800 pixels whose corner shows a sample; `sample` pixels large. */
const at = (x: number, y: number, sample: number): Placing => ({ corner: [-x * sample, -y * sample], sample: [sample, sample], canvas: [1000, 800] });

describe("tiles", () => {
  let server: Server;
  let tiles: Tiles;
  let closed = 0;

  const see = (on: Placing): void => {
    tiles.begin();
    tiles.want(on);
    tiles.settle();
  };

  beforeEach(() => {
    closed = 0;
    vi.stubGlobal("createImageBitmap", async () => ({ width: 514, height: 514, close: () => closed++ }));
    server = new Server();
    tiles = new Tiles(SIZE, 4, server.fetch, () => tiles.settle());
  });

  afterEach(() => {
    tiles.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("asks for none while the preview is fine enough, then for as fine ones as the screen shows", () => {
    see(at(0, 0, 0.25));
    expect(server.asked).toEqual([]);
    expect(tiles.isComplete).toBe(true);
    see(at(0, 0, 0.3));
    expect(server.asked[0]?.part.step).toBe(2);
    see(at(0, 0, 0.51));
    expect(server.asked.at(-1)?.part.step).toBe(1);
    see(at(0, 0, 20));
    expect(server.asked.at(-1)?.part.step).toBe(1);
  });

  it("asks for a sample around each tile, none before the image, and on the grid of its step", () => {
    see(at(0, 0, 2));
    expect(server.asked.map((a) => a.part)).toContainEqual({ first: [0, 0], size: [513, 513], step: 1 });
    see(at(1024, 1024, 20));
    expect(server.asked.at(-1)?.part).toEqual({ first: [1023, 1023], size: [514, 514], step: 1 });
    see(at(1024, 1024, 0.3));
    for (const { part } of server.asked.filter((a) => a.part.step === 2)) {
      expect(part.first.map((n) => n % 2)).toEqual([0, 0]);
      expect(Math.max(...part.size)).toBe(514 * 2);
    }
  });

  it("asks for few at once, and breaks off what is seen no more", async () => {
    see(at(0, 0, 0.6));
    expect(server.asked.length).toBe(4);
    server.asked[0]?.answer();
    await settled();
    expect(server.asked.length).toBe(5);
    see(at(15_000, 8_000, 0.6));
    expect(server.asked.slice(1, 5).every((a) => a.signal.aborted)).toBe(true);
    expect(server.asked.length).toBe(9);
    await settled();
    expect(server.asked.length).toBe(9); // what was broken off is no failure, and asks for nothing
  });

  it("keeps a bounded number, and what it wants", async () => {
    let answered = 0;
    for (let x = 0; x < 18_000; x += 1000)
      for (const y of [0, 4000, 8000]) {
        see(at(x, y, 1));
        for (; answered < server.asked.length; ) {
          server.asked[answered++]?.answer();
          await settled();
        }
        expect(tiles.isComplete).toBe(true);
      }
    expect(tiles.version).toBeGreaterThan(200);
    expect(tiles.version - closed).toBeLessThanOrEqual(128);
  });

  it("rests after a failure, and then asks again", async () => {
    vi.useFakeTimers();
    see(at(1024, 1024, 20));
    server.asked[0]?.fail();
    await vi.advanceTimersByTimeAsync(1000);
    see(at(1024, 1024, 20));
    expect(server.asked.length).toBe(1);
    expect(tiles.isComplete).toBe(true); // no one waits for it
    await vi.advanceTimersByTimeAsync(5000);
    expect(server.asked.length).toBe(2);
  });
});
