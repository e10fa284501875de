/** A case and a landmark in the address of the page for annotating: another page leads there. */

export interface Asked {
  readonly image: string;
  readonly landmark: string;
}

export const linkTo = (asked: Asked): string =>
  `./#case=${encodeURIComponent(asked.image)}&landmark=${encodeURIComponent(asked.landmark)}`;

/** Where somebody who has to log in for the page of the labels' quality goes to: it leads back there. */
export const LOGIN_FOR_QUALITY = "./#then=quality";

/** The page that a login leads to, or null for the page for annotating. */
export const pageAfterLogin = (hash: string): string | null =>
  new URLSearchParams(hash.replace(/^#/, "")).get("then") === "quality" ? "./quality.html" : null;

/** What the part of an address after `#` asks for, or null. */
export function askedBy(hash: string): Asked | null {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const image = found.get("case");
  return image ? { image, landmark: found.get("landmark") ?? "" } : null;
}
