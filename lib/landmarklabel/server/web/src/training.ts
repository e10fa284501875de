/** Training a model from the page: beginning one, ending it, and how it goes on. */

import { say } from "./texts";
import type { Work } from "./work";

export class Training {
  statistics: Record<string, unknown> = {}; // of the newest training, by model
  private isLooking = false;

  constructor(private readonly work: Work) {}

  async start(minutes: number): Promise<void> {
    if (!(minutes > 0)) return this.work.tell(say("minutesFirst"));
    await this.work.doing(async () => {
      await this.work.api.train(this.work.model, minutes);
      this.work.tell(say("trainingAsked", { model: this.work.model }));
    });
    await this.look();
  }

  async stop(): Promise<void> {
    await this.work.doing(() => this.work.api.stopTraining());
    await this.look();
  }

  /** Ask how it goes on; one question is under way at a time, and one that fails is put again soon. */
  async look(): Promise<void> {
    if (this.isLooking || !this.work.isActive || this.work.server !== "connected") return;
    this.isLooking = true;
    try {
      this.statistics = (await this.work.api.info()).training;
    } catch {
      return;
    } finally {
      this.isLooking = false;
    }
    this.work.changed();
  }
}
