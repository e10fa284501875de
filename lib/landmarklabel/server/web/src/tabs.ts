/** One tab of a browser works on a study at a time: the newest. Two would write over each other's cases. */

export class OneTab {
  private readonly own = crypto.getRandomValues(new Uint32Array(4)).join("-");
  private readonly channel: BroadcastChannel;

  /** `lost` is called once when another tab has taken over. */
  constructor(name: string, lost: () => void) {
    this.channel = new BroadcastChannel(name);
    let isLost = false;
    this.channel.onmessage = (event: MessageEvent<unknown>) => {
      if (event.data === this.own || isLost) return;
      isLost = true;
      lost();
    };
  }

  /** Take over from every other tab. */
  claim(): void {
    this.channel.postMessage(this.own);
  }
}
