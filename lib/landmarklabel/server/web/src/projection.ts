/** The plane beside the slices that shows a volume from front to back. */

import type { Place } from "./plane";
import { CORONAL, SlicePlane, type Links, type Orientation } from "./sliceplane";
import type { ViewEvents } from "./view";
import { brightest, paintSamples, type Volume } from "./volume";
import type { Position } from "./wire";

const PROJECTION: Orientation = { ...CORONAL, name: "projection" };

/** The brightest samples from front to back, with all points: where they are to one another. Nothing is placed here. */
export class Projection extends SlicePlane {
  private shown: Volume | null = null;
  private samples: Int16Array = new Int16Array();
  private version = -1;

  constructor(events: ViewEvents, links: Links) {
    super(events, links, PROJECTION);
    this.canGrab = false;
  }

  protected override toPlace(position: Position): Place {
    return { ...super.toPlace(position), depth: 0 };
  }

  protected override pressed(): void {}

  protected override turned(event: WheelEvent): void {
    this.zoomBy(Math.exp(-event.deltaY / 400), [event.offsetX, event.offsetY]);
  }

  protected override paintSlices(): void {
    const { volume } = this;
    const { version, greys } = this.links.shared;
    if (volume === null || (this.shown === volume && this.version === version)) return;
    if (this.shown !== volume) this.samples = brightest(volume.whole, this.cut);
    this.shown = volume;
    this.version = version;
    this.put(this.coarse, volume.whole, (image) => {
      paintSamples(image, this.samples, greys);
      return true;
    });
  }
}
