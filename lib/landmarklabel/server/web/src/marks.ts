/** How a point is drawn: its state is told by shape as well as by colour. */

import type { Point } from "./wire";

export const SVG = "http://www.w3.org/2000/svg";

export interface Look {
  readonly at: readonly [number, number]; // on the screen
  readonly kind: string; // its state, or `other` of another version
  readonly isSelected: boolean;
  readonly isNamed: boolean;
  readonly isAway: boolean; // off the slice that is shown
  readonly error: number; // expected, in pixels of the screen
}

const LEAST_ERROR = 7; // that is drawn: a smaller circle would hide in the point's own

/** Proposed is a ring, placed a cross in a ring, accepted a disc, another version's a diamond. */
export function mark(point: Point, { at, kind, isSelected, isNamed, isAway, error }: Look): SVGElement {
  const group = shape("g", { transform: `translate(${at[0]} ${at[1]})` });
  const said = [kind, isSelected && "selected", point.flagged && "flagged", isAway && "away"];
  group.setAttribute("class", ["mark", ...said.filter(Boolean)].join(" "));
  group.dataset["name"] = point.name;
  const parts: SVGElement[] = [];
  if (kind === "predicted" && (isSelected || point.flagged) && error > LEAST_ERROR) parts.push(shape("circle", { r: error, class: "error" }));
  if (kind === "other") parts.push(shape("path", { d: "M0-7 7 0 0 7-7 0Z" }));
  else parts.push(shape("circle", { r: 6 }));
  if (kind === "placed") parts.push(shape("path", { d: "M-6 0H6M0-6V6" }));
  if (kind === "predicted") parts.push(shape("circle", { r: 1.2, class: "dot" }));
  if (kind === "accepted") parts.push(shape("path", { d: "M-2.5 0-.5 2.2 3-2.4", class: "tick" }));
  if (isSelected) parts.push(shape("path", { d: "M-16 0h7M9 0h7M0-16v7M0 9v7", class: "cross" }));
  group.append(...parts);
  if (isNamed) {
    const label = shape("text", { x: 10, y: -8 });
    label.textContent = point.flagged ? `${point.name} ?` : point.name;
    group.append(label);
  }
  return group;
}

export function shape(kind: string, attributes: Record<string, string | number>): SVGElement {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}
