/** A case and a landmark in the address of the page for annotating: another page leads there. */

export interface Asked {
  readonly image: string;
  readonly landmark: string;
}

export const linkTo = (asked: Asked): string =>
  `./#case=${encodeURIComponent(asked.image)}&landmark=${encodeURIComponent(asked.landmark)}`;

/** What the part of an address after `#` asks for, or null. */
export function askedBy(hash: string): Asked | null {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const image = found.get("case");
  return image ? { image, landmark: found.get("landmark") ?? "" } : null;
}
