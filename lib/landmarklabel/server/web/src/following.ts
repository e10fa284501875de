/** The points that nobody has placed follow those that somebody has: one question to the server at a time, the newest state last. */

import { say } from "./texts";
import { saysTheSame } from "./wire";
import type { Work } from "./work";

const JUDGED_MS = 2_000; // that a submission waits for what the server says of the last move, which takes a tenth of it

export class Following {
  private asking: Promise<void> | null = null;
  private again = 0; // number of the question (`work.asked`) that is still to be put; whatever counts on makes it void
  private placed = ""; // what the others follow

  constructor(private readonly work: Work) {}

  /** Let the other points move. */
  async follow(name = ""): Promise<void> {
    this.again = ++this.work.asked;
    this.placed = name;
    this.asking ??= this.askWhileAnythingIsNew();
    await this.asking;
  }

  /** What the others were still to follow was taken back, or done again: they follow what stands now. */
  followWhatStands(): void {
    const stands = this.work.open?.points.some((p) => p.state === "placed" || p.state === "absent") === true;
    if (this.asking !== null && stands) void this.follow();
  }

  /** Wait for what the server says of the last move, as long as a person would. */
  async judged(): Promise<void> {
    if (this.asking === null) return;
    const late = new Promise<void>((resolve) => setTimeout(resolve, JUDGED_MS));
    this.work.busy++;
    this.work.changed();
    await Promise.race([this.asking, late]);
    this.work.busy--;
    this.work.changed();
  }

  private async askWhileAnythingIsNew(): Promise<void> {
    while (this.again === this.work.asked) {
      this.again = 0;
      await this.ask();
    }
    this.asking = null;
  }

  private async ask(): Promise<void> {
    const { work } = this;
    const { open } = work;
    if (open === null || !work.model || work.server !== "connected" || work.withoutProposals) return;
    const [asked, name, told] = [work.asked, this.placed, open.points];
    try {
      const answer = await work.api.update(work.model, open.image, told, work.task);
      if (work.open !== open || asked !== work.asked || work.withoutProposals) return;
      if (!saysTheSame(told, open.points)) {
        this.again = asked; // the answer is to what is no longer said: it would call an unlocked point absent again
        return;
      }
      const n = open.follow(answer.points, answer.next);
      work.edited(n && name ? say("moved", { name, n }) : work.message);
    } catch (error) {
      work.failed(error);
    }
  }
}
