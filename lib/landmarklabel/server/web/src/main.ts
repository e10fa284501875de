/** Begins: who is here, a login where one is needed, then the page. */

import type { Annotation } from "./annotation";
import { Api, LoggedOut, Unreachable, type Who } from "./api";
import { App } from "./app";
import { button, make, put } from "./dom";
import { askedBy, pageAfterLogin } from "./link";
import { opened, type Storage } from "./storage";
import { OneTab } from "./tabs";
import { say } from "./texts";
import { Work } from "./work";

const TICK_MS = 1_000;

const api = new Api(new URL("../", location.href));
const place = document.getElementById("app") ?? document.body;
let storage: Storage | null = null;
let work: Work | null = null;
let app: App | null = null;
let givenUp: { open: Annotation; edits: number } | null = null; // what another press of Log out gives up
let cover: HTMLElement | null = null;
let isLeaving = false; // this page's own doing, and nothing is lost by it
let askingHow = false; // how people log in: an answer of the server is on its way

/** Something in front of everything else; the page behind it stays as it is. */
function show(element: HTMLElement | null): void {
  cover?.remove();
  cover = element;
  place.inert = element !== null; // the Tab key does not go behind it
  if (element === null) return;
  element.setAttribute("role", "dialog");
  element.setAttribute("aria-modal", "true");
  element.setAttribute("aria-label", element.querySelector("h1, p")?.textContent ?? say("title"));
  element.tabIndex = -1;
  document.body.append(element);
  (element.querySelector<HTMLElement>("input, button") ?? element).focus();
}

/** Ask who is there: for a token, or for a name and a password where another server knows people by these. */
async function login(help: "loginHelp" | "loginAgain"): Promise<void> {
  if (askingHow) return;
  askingHow = true;
  const before = cover;
  let accounts: boolean;
  try {
    accounts = await api.hasAccounts();
  } catch {
    if (help === "loginHelp") beginLater(); // else it is tried again while the page goes on
    return;
  } finally {
    askingHow = false;
  }
  if (cover !== before) return; // something else has come in front
  const name = field("username", say("loginName"), "username");
  const secret = field("token", say(accounts ? "loginPassword" : "loginToken"), "current-password");
  secret.input.type = "password";
  const why = make("p", { class: "trouble" });
  why.setAttribute("role", "alert");
  const enter = button(say("loginButton"), "", () => form.requestSubmit());
  enter.classList.add("main");
  const about = make("p", { text: say(accounts && help === "loginHelp" ? "loginHelpAccounts" : help) });
  const asked = accounts ? [name.label, secret.label] : [secret.label];
  const form = make("form", {}, make("h1", { text: say("loginTitle") }), about, ...asked, why, enter);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const token = accounts ? api.tokenOf(name.input.value.trim(), secret.input.value) : Promise.resolve(secret.input.value.trim());
    token
      .then((shown) => api.login(shown))
      .then(begin)
      .catch((error: unknown) => put(why, error instanceof Error ? error.message : String(error)));
  });
  show(make("div", { class: "cover" }, form));
}

function field(id: string, text: string, known: AutoFill): { input: HTMLInputElement; label: HTMLElement } {
  const input = make("input");
  input.id = id;
  input.autocomplete = known;
  return { input, label: make("label", { class: "field" }, make("span", { text }), input) };
}

function beginLater(): void {
  show(make("div", { class: "cover" }, make("p", { text: say("away") })));
  setTimeout(() => void begin(), 2 * TICK_MS);
}

async function begin(): Promise<void> {
  let who: Who;
  try {
    who = await api.who();
    if (work === null) await build(who);
  } catch (error) {
    if (error instanceof LoggedOut) await login("loginHelp");
    else if (error instanceof Unreachable) {
      beginLater();
    } else show(make("div", { class: "cover" }, make("p", { class: "trouble", text: error instanceof Error ? error.message : String(error) })));
    return;
  }
  if (work !== null && work.who.name !== who.name) {
    reload(); // somebody else has logged in: what the one before has done waits for that one
    return;
  }
  const after = pageAfterLogin(location.hash);
  if (after !== null) {
    location.replace(after);
    return;
  }
  show(null);
  await work?.start(who, askedBy(location.hash)?.image);
  await openAsked();
}

/** Open the case that the address asks for, at its landmark; the address then asks no more. */
async function openAsked(): Promise<void> {
  const asked = askedBy(location.hash);
  if (asked === null || work === null) return;
  if (work.open?.image !== asked.image || work.open.repeat) {
    app?.letGo();
    await work.openCase(asked.image);
  }
  if (work.open?.image !== asked.image) return; // a page that is loaded again asks again
  history.replaceState(null, "", location.pathname + location.search);
  app?.goTo(asked);
}

/** The page, for this study and this person. */
async function build(who: Who): Promise<void> {
  if (!hasStorage()) throw new Error(say("noStorage"));
  const { task, storage: own } = await opened(api, who);
  storage = own;
  tabs(storage);
  document.title = `${task.name} · ${say("title")}`;
  work = new Work(api, storage, task, changed);
  work.who = who;
  app = new App(work, () => void logout());
  place.replaceChildren(app.element);
}

function hasStorage(): boolean {
  try {
    return Boolean(globalThis.localStorage);
  } catch {
    return false;
  }
}

function changed(): void {
  app?.refresh();
  if (work?.server === "logged out" && cover === null) void login("loginAgain");
}

/** What waits is sent first: after a logout nothing is left in this browser. */
async function logout(): Promise<void> {
  if (work === null) return;
  await work.deliver();
  const { open } = work;
  const waiting = work.unsent().length;
  if (waiting) {
    work.tell(say("logoutWaits", { n: waiting }));
    return;
  }
  const answers = storage?.answers().length ?? 0;
  if (answers) {
    work.tell(say("logoutAnswers", { n: answers }));
    return;
  }
  if (open?.isUnsent === true) {
    if (givenUp?.open !== open || givenUp.edits !== open.edits) {
      givenUp = { open, edits: open.edits };
      work.tell(say("logoutOpen", { case: open.image }));
      return;
    }
    await work.discard({ image: open.image, repeat: open.repeat, why: "", entry: null });
    open.delivered = open.edits;
  }
  try {
    await api.logout();
  } catch (error) {
    if (error instanceof LoggedOut) work.tell(error.message); // somebody else's login is theirs to end
    else work.tell(say("logoutAway", { why: error instanceof Error ? error.message : String(error) }));
    return;
  }
  work.deactivate(); // nothing is written once this browser is empty
  storage?.clear();
  location.reload();
}

/** Load the page anew; what is only in it is kept first, or given up by a second word. */
function reload(): void {
  storage?.keepTheRest();
  if (storage?.isPartlyKept !== true) {
    isLeaving = true;
    location.reload();
    return;
  }
  const lose = button(say("loseButton"), "", () => {
    isLeaving = true;
    location.reload();
  });
  show(make("div", { class: "cover" }, make("p", { class: "trouble", text: say("reloadLoses", { why: storage.fault }) }), button(say("keepButton"), "", reload), lose));
}

function tabs(of: Storage): void {
  const one = new OneTab(of.name("tab"), () => {
    work?.deactivate();
    const here = button(say("workHere"), "", reload);
    show(make("div", { class: "cover" }, make("p", { text: say("otherTab") }), here));
  });
  one.claim();
}

addEventListener("beforeunload", (event) => {
  if (storage?.isPartlyKept === true && !isLeaving) event.preventDefault(); // the browser asks
});
addEventListener("hashchange", () => void openAsked());
void begin();
setInterval(() => void work?.tick(), TICK_MS);
