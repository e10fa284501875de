/** A case and a landmark in the address of the page for annotating: another page leads there. */

export interface Asked {
  readonly image: string;
  readonly landmark: string;
  readonly expected: readonly number[] | null; // where the other points of the case expect the landmark
}

export const linkTo = ({ image, landmark, expected }: Asked): string =>
  `./#${new URLSearchParams({ case: image, landmark, ...(expected === null ? {} : { expected: expected.join(",") }) }).toString()}`;

/** Where somebody who has to log in for the page of the labels' quality goes to: it leads back there. */
export const LOGIN_FOR_QUALITY = "./#then=quality";

/** The page that a login leads to, or null for the page for annotating. */
export const pageAfterLogin = (hash: string): string | null =>
  new URLSearchParams(hash.replace(/^#/, "")).get("then") === "quality" ? "./quality.html" : null;

/** What the part of an address after `#` asks for, or null. */
export function askedBy(hash: string): Asked | null {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const image = found.get("case");
  const numbers = (found.get("expected") ?? "").split(",").map(Number);
  const expected = (numbers.length === 2 || numbers.length === 3) && numbers.every(Number.isFinite) ? numbers : null;
  return image ? { image, landmark: found.get("landmark") ?? "", expected } : null;
}
