/** All texts that a person reads, in one place. `{x}` stands for what is put in. */

import { isByPerson, type Point, type Revision } from "./wire";

export const TEXTS = {
  title: "LandmarkLabel",
  // logging in
  loginTitle: "Log in",
  loginToken: "Token",
  loginHelp: "Whoever runs this server gives you a token. It is typed once; this browser is then let in for a working day.",
  loginName: "Name",
  loginPassword: "Password",
  loginHelpAccounts: "Log in as you do elsewhere in your institution. This browser is then let in for a working day.",
  loginButton: "Log in",
  logoutButton: "Log out",
  loginAgain: "Your login has ended. Nothing is lost: log in again, and what you have done is sent.",
  logoutOpen: "{case} is not on the server: submit it, or press Log out again to give up what you did to it",
  logoutAnswers: "{n} answers on the page of the labels' quality are not on the server: open that page once, then log out",
  logoutWaits: "{n} cases are not on the server: submit or discard them (see Unsent), then log out",
  // which tab
  otherTab: "This study is open in another tab of this browser.",
  workHere: "Work in this tab",
  // the server
  connected: "connected",
  connectedAs: "connected as {who}",
  away: "the server does not answer; your work is kept in this browser and sent later",
  otherStudy: "Another study is at this address now. What you have done waits until this one is back.",
  noStorage: "This browser keeps nothing for this page, so work could be lost: allow cookies and site data for this address, then load the page again.",
  awayUnkept: "the server does not answer; leave this tab open: your work is only here, and is sent later",
  back: "the server answers again",
  taskChanged: "The study's landmarks, scale or measurements were changed. Load this page again: until then numbers may be the old ones. What you have placed is kept.",
  // the case
  nextButton: "Next case",
  noCase: "No case is open.",
  noCaseHelp: "Press “Next case”: the server chooses one, by the rule under “Choose by” (see “…”), and says why.",
  allDone: "Every case is labelled, or in somebody else's hands.",
  openCase: "Open a case",
  toDo: "to do",
  labelledBy: "labelled by {who}",
  inWorkBy: "in work by {who}",
  somebody: "somebody",
  secondReading: "second reading",
  inSecondReading: "This is a second reading: nothing is proposed",
  withoutProposals: "Read without proposals is on, under …: nothing is proposed",
  withoutProposalsLabel: "Read without proposals",
  withoutProposalsHelp: "Nothing is predicted and no point follows another: for readings that are to be independent",
  yourChanges: "with your changes that were not sent",
  yourDraft: "with your changes from another browser or tab",
  asSubmitted: "as you submitted it; the server does not have it yet",
  progress: "{n} of {of} done, {k} doubtful",
  notSent: "not sent yet",
  gone: "{names}: the task has no such landmarks any more; what you placed is kept in this browser",
  otherImage: "This is another image than the one its points were placed on: look at every point.",
  loadingImage: "The image is fetched …",
  noImage: "The image cannot be shown ({why}): open the case again.",
  // points
  predictButton: "Predict",
  nextDoubtfulButton: "Next doubtful",
  acceptButton: "Accept",
  acceptAllButton: "Accept all",
  placeButton: "Place",
  absentButton: "Absent",
  unlockButton: "Unlock",
  undoButton: "Undo",
  redoButton: "Redo",
  submitButton: "Submit and next",
  fitButton: "Fit",
  invertButton: "Invert",
  keysButton: "Keys",
  planeAxial: "axial",
  planeSagittal: "sagittal",
  planeCoronal: "coronal",
  projection: "projection",
  enlargeButton: "Enlarge",
  allPlanesButton: "All planes",
  contrastButton: "Contrast",
  state_unset: "to do",
  state_predicted: "proposed",
  state_placed: "placed",
  state_accepted: "accepted",
  state_absent: "absent",
  filterAll: "all",
  filterToDo: "to do",
  filterDoubtful: "doubtful",
  filterLabel: "Show",
  landmarks: "Landmarks",
  expectedError: "expected error {error} {unit}",
  clickToPlace: "Click on the image to place {name}; Escape leaves it where it was.",
  placed: "{name} placed",
  accepted: "{name} accepted",
  nothingToAccept: "nothing is proposed that could be accepted",
  acceptedAll: "all accepted",
  acceptedOthers: "the others are accepted",
  contradicting: "contradicting the rest: {names}; look at each (N)",
  absent: "{name} is absent",
  unlocked: "{name} unlocked",
  locked: "{name} is {state}: unlock it first (U)",
  noSuchLandmark: "the task has no landmark {name} any more",
  noPosition: "{name} has no position to accept: place it, or call it absent",
  outside: "{name} cannot be outside of the image: it is where it was",
  outsideAll: "outside of the image: {names}; drag them inside, or call them absent",
  moved: "{name} placed; {n} points moved with it. Ctrl+Z takes that back",
  predicted: "predicted",
  byTemplate: "placed by the shape of the labelled cases",
  nothingKnown: "nothing is known yet: place the points, and label some cases",
  noModel: "this server has no model to ask",
  allLookedAt: "every point has been looked at: submit the case",
  nothingStated: "nothing to submit yet: place, accept or call absent at least one point",
  slips: "far from where the other points of this case lead one to expect: {names}. Press again to submit if that is right",
  selectFirst: "select a landmark first",
  undone: "undone: {what}",
  redone: "done again: {what}",
  nothingToUndo: "nothing to undo",
  nothingToRedo: "nothing to redo",
  what_place: "place {name}",
  what_accept: "accept {name}",
  what_acceptAll: "accept all",
  what_unlock: "unlock {name}",
  what_absent: "call {name} absent",
  what_predict: "prediction",
  what_restore: "restore a revision",
  what_take: "take the other version",
  // what the points measure
  measurements: "Measurements",
  drawMeasurement: "Press to draw it on the image.",
  measured_name: "Measurement",
  measured_value: "Value",
  measured_interval: "95 % interval",
  measured_usual: "Usual",
  interval: "95 % interval, from how far off the points may be",
  // sending
  sent: "{case} is sent",
  saved: "{case} is saved as revision {n}",
  notSubmitted: "{case} is not submitted: you went on before the server had answered. Submit it again",
  savedRepeat: "the second reading of {case} is saved",
  savedRepeatPartly: "the second reading of {case} is saved; {k} of its {all} points are not labelled",
  savedPartly: "{case} is saved as revision {n}; {k} of its {all} points are not labelled: place, accept or call them absent",
  taskGained: "the task has the landmark {name} by now: load this page again; what you have done stays",
  madeBefore: "submitted here by {who} before people had to log in: Send again sends it in your name",
  nobodys: "{n} from before people had to log in: whoever did it presses Take over",
  takeOverButton: "Take over",
  tookOver: "{n} taken over: see Unsent.",
  tookOverAnswers: "{n} answers about the quality of labels are sent in your name when you open that page.",
  notTakenOver: "{n} stay: you have the same case unsent yourself, or the browser has no space; submit yours, then press Take over again.",
  reloadLoses: "The browser had no space for what you have done, so it is only in this page ({why}). Make space (another site's data, other tabs), then press Keep.",
  keepButton: "Keep it, then go on",
  loseButton: "Lose it, and go on",
  logoutAway: "the server does not answer, so you are still logged in: press Log out again when it does ({why})",
  clickedTwice: "a double click counts once, so that the next landmark stays as it is",
  nextComes: "the next case is on its way",
  otherPerson: "{who} has logged in in this browser since this page was opened. Nothing was saved; load the page again to go on as {who}.",
  nobody: "somebody without a name",
  noSpace: "it has no space left",
  cannotKeep: "Your points are only in this tab: the browser keeps nothing ({why}). Leave it open until everything is submitted and saved.",
  waits: "waits for the server",
  changedOnly: "changed, not submitted",
  refused: "{case}: the server did not take it: {why}. It is kept: see Unsent",
  unsentTitle: "Unsent",
  sendAgainButton: "Send again",
  openButton: "Open",
  discardButton: "Discard",
  discardSure: "your points of {case} will be gone: press Discard again if that is right",
  onItsWay: "{case} is on its way to the server: it cannot be discarded now",
  discarded: "{case}: discarded",
  // two versions
  draftElsewhere: "you worked on this case in another browser too and did not submit it: {k} points differ, drawn as diamonds",
  tookDraft: "took what you had done in the other browser",
  conflict: "{who} saved revision {n} meanwhile: {k} points differ, drawn as diamonds",
  conflictRestored: "the study was restored from an older copy: revision {n} is {who}'s now, and {k} points differ, drawn as diamonds",
  conflictGone: "the study was restored from an older copy, and the server has no revision of this case any more: “Submit mine” saves yours",
  takePointButton: "Take theirs for this point",
  takeAllButton: "Take all theirs",
  submitMineButton: "Submit mine",
  conflictFirst: "look at both versions first: take theirs, or press “Submit mine”",
  nothingDiffers: "the two versions agree on {name}",
  tookPoint: "{name} taken from the other version",
  tookAll: "revision {n} taken",
  // review
  revisions: "Revisions",
  revision: "{n}: {who}, {k} points",
  restoreButton: "Restore",
  readAgainButton: "Second reading",
  readAgainHelp: "Place the points of this case once more, without seeing the first: how far the two differ is how exact you are. It changes no label.",
  restored: "revision {n} of {who}: submit to make it the newest",
  // training
  training: "Training",
  trainButton: "Train",
  stopButton: "Stop",
  minutes: "minutes",
  trainingRuns: "{model} is being trained, {percent} %",
  minutesFirst: "say how many minutes it may take: a number above 0",
  trainingAsked: "{model} will be trained",
  trainingNone: "nothing was trained yet",
  trainingRole: "training needs the role admin",
  published: "published",
  notPublished: "not published",
  // options
  author: "Your name",
  authorHelp: "Saved with every revision; other people see it.",
  strategy: "Choose by",
  model: "Model",
  // a second look at the labels
  qualityTitle: "Quality of the labels",
  qualityLink: "Quality of the labels",
  annotateLink: "Annotate",
  statusLink: "Status of the study",
  qualitySummary: "{points} points of {cases} cases. First those that lie least where the other points of their case expect them.",
  tooFewCases: "There are too few labelled cases, or too few landmarks in each, to say where points are expected: it takes eight cases, and at least four landmarks (five in a volume).",
  tooFewPoints: "Not looked at, because fewer than eight cases have them: {names}.",
  expectedHere: "The red cross is where the other points of this case expect {name}",
  shapeLabel: "All cases laid over one another",
  shapeLegend: "Small dots: all cases, laid over one another. Full dots: where a landmark typically lies. Rings: the chosen case; its point in the thick ring. Cross: where the other points of that case expect it.",
  swappedWith: "swapped with {name}?",
  backToQuality: "Back to the quality of the labels",
  column_case: "Case",
  column_landmark: "Landmark",
  column_timesMedian: "Unusual",
  column_off: "Off by",
  column_answer: "Your answer",
  about_case: "Press one to see it over the other cases",
  about_landmark: "The landmark",
  about_timesMedian: "So many times as far off as this landmark is in half of the cases, given how its neighbours vary",
  about_off: "From where the other points of the case expect it",
  alsoChecked: "also those that somebody has called right",
  openCaseLink: "Open",
  openCaseHelp: "Open the case at this point, to look at it or to mend it",
  rightButton: "Right",
  rightHelp: "It is right where it is: this is kept as a revision, and the point leaves the list",
  saidRight: "right, says {who}",
  saidRightOf: "{case}: {landmark} is right where it is",
  takeBackButton: "Take back",
  takeBackHelp: "It has to be looked at again: the point comes back into the list",
  takenBackOf: "{case}: {landmark} has to be looked at again",
  answersWait: "Your answer is not on the server yet ({why}). It is kept in this browser, and sent with the next one or when this page is opened again.",
  answerRefused: "{case}, {landmark}: {why}",
  changedSince: "{case} was saved meanwhile: look at its points again",
  previousPage: "Previous",
  nextPage: "Next",
  pageOf: "page {n} of {of}",
  tableLink: "Table (CSV)",
  specimensLink: "Specimens for SlicerMorph (zip)",
  keysTitle: "Keys",
  close: "Close",
  unexpected: "Unexpected: {why}",
} as const;

export type TextName = keyof typeof TEXTS;

export function say(name: TextName, put: Record<string, string | number> = {}): string {
  return TEXTS[name].replace(/\{(\w+)\}/g, (whole, key: string) => String(put[key] ?? whole));
}

/** Every key, what it does; shown under `?`. */
export const KEYS: readonly (readonly [string, string])[] = [
  ["P", "predict"],
  ["N", "go to the next doubtful point"],
  ["A", "accept the selected point"],
  ["Shift+A", "accept all"],
  ["L", "place the selected point by the next click"],
  ["X", "call the selected point absent"],
  ["U", "unlock an accepted or absent point"],
  ["↑ ↓ ← →", "move the selected point by a tenth of a pixel; with Shift by one"],
  [". ,", "select the next or previous landmark; so do ↓ and ↑ in the list"],
  ["Ctrl+Z, Ctrl+Y", "undo, redo"],
  ["Ctrl+Enter", "submit, and open the next case"],
  ["+, −, 0", "zoom in, out, fit"],
  ["Page up, Page down", "in a volume: the previous or next slice of the plane under the mouse"],
  ["I, C", "invert the grey values; brightness and contrast as at first"],
  ["H", "hide the other points while the key is held"],
  ["Escape", "leave placing; close this list"],
  ["Mouse", "drag a point to move it; drag the image to shift it; wheel to zoom, in a volume to go through the slices (with Ctrl: zoom); click in a volume to cut all planes there; right button to change brightness and contrast"],
  ["?", "this list"],
];

const SHOWN_NAMES = 3; // of those outside of the image

/** What is saved of a case, under which revision (none of a second reading), and what of it is not labelled. */
export function savedText(image: string, revision: number | null, points: readonly Point[]): string {
  const [k, all] = [points.filter((p) => !isByPerson(p)).length, points.length];
  const which = revision === null ? (k ? "savedRepeatPartly" : "savedRepeat") : k ? "savedPartly" : "saved";
  return say(which, { case: image, n: revision ?? 0, k, all });
}

/** What *Accept all* has accepted, and what it has left to a person. */
export function acceptedText(taken: number, flagged: readonly string[], outside: readonly string[]): string {
  const left = [flagged.length ? say("contradicting", { names: flagged.join(", ") }) : "", outside.length ? outsideText(outside) : ""].filter(Boolean);
  if (!left.length) return say(taken ? "acceptedAll" : "nothingToAccept");
  return [...(taken ? [say("acceptedOthers")] : []), ...left].join("; ");
}

export function outsideText(names: readonly string[]): string {
  return say("outsideAll", { names: names.slice(0, SHOWN_NAMES).join(", ") + (names.length > SHOWN_NAMES ? " …" : "") });
}

/** The server is away; `isKept`: whatever was done is kept by the browser. */
export function awayText(isKept: boolean): string {
  return say(isKept ? "away" : "awayUnkept");
}

/** What another version of a case is, beside one that started from revision `base`. */
export function conflictText(other: Revision, base: number, k: number): string {
  const about = { who: other.author || say("somebody"), n: other.revision, k };
  if (other.isDraft === true) return say("draftElsewhere", about);
  if (other.revision > base) return say("conflict", about);
  return say(other.revision ? "conflictRestored" : "conflictGone", about);
}
