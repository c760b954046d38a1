// A conversation with one of the server's models. It uses the public API (v1/...) and keeps what was said in this tab alone.

const WHERE_KO = { local: "서버 컴퓨터", cloud: "클라우드" };
const LICENCE_KO = {
  ...WHERE_KO,
  yes: "가능",
  "yes, if": "조건부 가능",
  "yes, with use restrictions": "가능(용도 제한 있음)",
  "yes, if, with use restrictions": "조건부 가능(용도 제한 있음)",
  no: "불가",
  unknown: "알 수 없음",
  "your own data": "직접 준비한 데이터",
  "terms not known": "조건을 알 수 없음",
};
// Those before a colon, a bracket, a semicolon or the end: `yes, if (Llama 2 Community License)`, `local: no (Y); cloud: unknown`.
const LICENCE_WORDS = /(^|: |; )([a-z, ]+)(?=:| \(|;|$)/g;
const LICENCE_TITLES = /(?<=\(|, )(?:your own data|terms not known)(?=,|\))/g; // in a bracket: those that are no names
const WORDS = {
  en: {
    user: "You",
    assistant: "Answer",
    model: "Model",
    settings: "Settings",
    system: "System message",
    temperature: "Temperature",
    limit: "Longest answer, tokens",
    key: "API key of this server",
    save: "Save",
    saveText: "As text", // short, as is `fresh`: a telephone has one row for the buttons
    saveTextTitle: "Save as text",
    unsaid: "There is nothing to save yet.",
    unsaved: "Nothing was saved: no answer was written to its end, and tuning learns no others. “As text” keeps all there is.",
    fresh: "New",
    freshTitle: "New conversation",
    ask: "Ask something. Enter sends, Shift+Enter is a new line.",
    askByTouch: "Ask something.",
    talk: "Conversation",
    send: "Send",
    stop: "Stop",
    writing: "The answer is being written. Esc or Stop ends it.",
    code: "Code",
    table: "Table",
    copy: "Copy",
    copyCode: "Copy the code",
    copyAnswer: "Copy the answer",
    copied: "Copied",
    uncopied: "Not copied",
    again: "Again",
    here: "Answers are written on the machine that serves this page. Nothing is sent anywhere else.",
    away: (model) => `${model} runs on another server: what you write, and this conversation so far, is sent there.`,
    routed:
      "auto: what holds private data it recognises stays on the server. Else what you write, and this conversation so far, " +
      "may be sent to the cloud of its policy.",
    gone: (model) => `${model} is not on this server any more. Choose a model.`,
    mute: (model) => `${model} has no chat template: it completes texts, and cannot be talked to.`,
    others: "Choose another model.",
    licence: (verdict) => `Commercial use: ${verdict}.`,
    tuned: "Tuned on a table: it knows the question it learned and no other.",
    asTuned: "Put what I write into that question",
    where: { local: "on the server", cloud: "in the cloud" },
    why: {}, // the server's own words
    cut: "ended at the limit",
    stopped: "stopped",
    untold: "before the server said where the question went",
    filtered: "ended by the server's filter",
    facts: (tokens, speed) => `${tokens} tokens${speed ? `, ${speed} a second` : ""}`,
    uncounted: "tokens not told",
    lost: "The server cannot be reached. Is `nomoat serve` still running?",
    needsKey: "This server asks for its API key: open the settings.",
    wrongKey: "This is not the API key of this server.",
    oddKey: "The API key holds characters that cannot be sent. Was it typed with another keyboard layout?",
    refused: {
      413: "What was sent is too long.",
      429: "Too many questions in a short time. Ask again a little later.",
      503: "The server is busy, or not running. Ask again a little later.",
      504: "The server took too long to answer. Ask again a little later.",
      other: "The request was not answered.",
    }, // by the status, of a proxy before the server
    wrong: {}, // the server's own words
  },
  ko: {
    user: "나",
    assistant: "답변",
    model: "모델",
    settings: "설정",
    system: "시스템 메시지",
    temperature: "온도",
    limit: "답변의 최대 토큰 수",
    key: "이 서버의 API 키",
    save: "저장",
    saveText: "글로 저장",
    unsaid: "아직 저장할 대화가 없습니다.",
    unsaved: "끝까지 작성된 답변이 없어 저장하지 않았습니다. 튜닝은 온전한 답변만 학습합니다. ‘글로 저장’은 대화를 모두 저장합니다.",
    fresh: "새 대화",
    ask: "무엇이든 물어보세요. Enter는 보내기, Shift+Enter는 줄바꿈입니다.",
    askByTouch: "무엇이든 물어보세요.",
    talk: "대화",
    send: "보내기",
    stop: "멈춤",
    writing: "답변을 쓰는 중입니다. Esc나 ‘멈춤’으로 끝낼 수 있습니다.",
    code: "코드",
    table: "표",
    copy: "복사",
    copyCode: "코드 복사",
    copyAnswer: "답변 복사",
    copied: "복사했습니다",
    uncopied: "복사하지 못했습니다",
    again: "다시",
    here: "답변은 이 페이지를 제공하는 서버 컴퓨터에서 만듭니다. 그 밖의 곳으로는 아무것도 보내지 않습니다.",
    away: (model) => `${model}은(는) 다른 서버에서 실행됩니다. 입력한 내용과 지금까지의 대화가 그 서버로 전송됩니다.`,
    routed:
      "auto: 알아본 개인정보가 들어 있으면 서버에 남고, 아니면 입력한 내용과 지금까지의 대화가 정책에 적힌 클라우드로 전송될 수 있습니다.",
    gone: (model) => `${model}은(는) 이제 이 서버에 없습니다. 모델을 고르세요.`,
    mute: (model) => `${model}에는 대화 템플릿이 없습니다. 글을 이어 쓸 뿐 대화하지 못합니다.`,
    others: "다른 모델을 고르세요.",
    licence: (verdict) => {
      const said = verdict.replace(LICENCE_WORDS, (all, before, words) => before + (LICENCE_KO[words] ?? words));
      return `상업적 이용: ${said.replace(LICENCE_TITLES, (title) => LICENCE_KO[title])}.`;
    },
    tuned: "표로 튜닝한 모델이라 학습한 질문에만 제대로 답합니다.",
    asTuned: "입력한 글을 그 질문에 넣어 묻기",
    where: WHERE_KO,
    why: {
      private: "정책이 밖으로 내보내지 않는 개인정보가 들어 있음",
      no_cloud: "정책에 클라우드 모델이 없음",
      offline: "오프라인으로 설정됨",
      policy_broken: "바뀐 정책을 읽을 수 없어, 고칠 때까지 아무것도 내보내지 않음",
      other_cloud: "바뀐 정책의 클라우드 모델을 아직 불러오지 않음(서버를 다시 시작해야 함)",
      cannot_ask: "이 요청은 클라우드로 보낼 수 없음",
      default: "쓸 수 있는 학습된 라우터가 없어 정책의 기본값을 따름",
      learned: "학습된 라우터의 판단",
      budget: "정책의 예산을 넘을 수 있음",
      cloud_failed: "클라우드 모델이 응답하지 못해 정책에 따라 서버 컴퓨터에서 답함",
    },
    cut: "길이 제한에서 끝남",
    stopped: "멈춤",
    untold: "질문이 어디로 갔는지 서버가 알리기 전",
    filtered: "서버의 필터가 끝냄",
    facts: (tokens, speed) => `${tokens} 토큰${speed ? `, 초당 ${speed}` : ""}`,
    uncounted: "토큰 수를 알 수 없음",
    lost: "서버에 연결할 수 없습니다. `nomoat serve`가 아직 실행 중인가요?",
    needsKey: "이 서버는 API 키가 필요합니다. 설정에서 입력하세요.",
    wrongKey: "이 서버의 API 키가 아닙니다.",
    oddKey: "API 키에 보낼 수 없는 글자가 들어 있습니다. 한글 입력 상태는 아닌가요?",
    refused: {
      413: "보낸 내용이 너무 깁니다.",
      429: "짧은 시간에 질문이 너무 많았습니다. 잠시 뒤에 다시 시도하세요.",
      503: "서버가 바쁘거나 실행되고 있지 않습니다. 잠시 뒤에 다시 시도하세요.",
      504: "서버가 제때 답하지 못했습니다. 잠시 뒤에 다시 시도하세요.",
      other: "요청을 처리하지 못했습니다.",
    },
    wrong: {
      bad_file: "서버가 내부 파일을 읽지 못했습니다. 서버의 로그를 보세요.",
      bad_setting: "서버에 키가 없거나 잘못된 설정이 있습니다. 서버의 로그를 보세요.",
      busy: "서버에 요청이 몰려 있습니다. 잠시 뒤에 다시 시도하세요.",
      body_too_long: "보낸 내용이 너무 깁니다.",
      context_length_exceeded: "모델이 한 번에 읽을 수 있는 길이를 넘었습니다. 새 대화를 시작하거나 내용을 줄이세요.",
      disk_full: "서버의 디스크가 가득 찼습니다. 서버의 로그를 보세요.",
      loading: "서버가 모델을 불러오는 중입니다. 잠시 뒤에 다시 시도하세요.",
      model_not_found: "모델을 찾을 수 없습니다.",
      not_enough_memory: "메모리가 부족합니다.",
      not_writable: "서버가 내부 파일을 쓰지 못했습니다. 서버의 로그를 보세요.",
      offline: "nomoat가 다른 컴퓨터로의 연결을 막았습니다.",
      rate_limit_error: "요청이 너무 많거나 사용 한도를 넘었습니다.",
      policy_changed: "차례를 기다리는 동안 정책이 바뀌어 클라우드의 답을 받지 않았습니다. 다시 시도하세요.",
      shutting_down: "서버가 종료되는 중입니다.",
      no_thread: "시스템이 서버에 스레드를 더 허용하지 않습니다. 잠시 뒤에 다시 시도해 주세요.",
      unsupported: "이 모델이 지원하지 않는 요청입니다.",
      upstream_error: "모델이 실행되는 다른 서버에서 오류가 났습니다.",
      other: "요청을 처리하지 못했습니다.",
    }, // by the error's type or code
  },
};
const LANGUAGE = navigator.language.startsWith("ko") ? "ko" : "en";
const SAY = WORDS[LANGUAGE];
const KEPT = ["model", "system", "temperature", "limit", "key", "question"]; // what was typed and chosen, for this tab
const KEEP_MS = 2000; // between two times that an answer is kept which is being written
const MIN_PAUSE_MS = 250; // between two renderings of an answer that is being written
const MAX_PAUSE_MS = 1000;
const PAUSE_SHARE = 2; // times what the last one took: the more, the longer the text, the busier the server, the slower the line
const LOADING_MS = 2000; // between two looks whether the server has its model
const SAID_MS = 1500; // how long it stays what is said once
const QUIET_MS = 250; // the browser tells of changes some time after them
const TEXT = "{text}"; // where the text stands in a model's question, as `labelling.TEXT` has it
const SENDABLE = /^[\x20-\x7e]*$/; // the characters that keys of servers may have, as `require_sendable` has them
const MIN_PIECES = 3; // of an answer, and the time from first to last, that tell how fast it is written
const MIN_SECONDS = 0.2;
const BY_TOUCH = matchMedia("(pointer: coarse)"); // a telephone's keyboard has no Shift+Enter

const at = (id) => document.getElementById(id);
const kept = JSON.parse(sessionStorage.getItem("nomoat") ?? "{}");
let turns = kept.turns ?? []; // {role, content, facts, wrong, where}; isWhole: an answer that was not broken off; before: what it is to replace
let models = [];
let writing = null; // the AbortController of the answer that is being written
let keptAt = 0;
let nextLook = 0;
let numQuiet = 0;

function keep() {
  keptAt = performance.now();
  const typed = Object.fromEntries(KEPT.map((id) => [id, at(id).value]));
  typed.model ||= kept.model; // until the models are listed
  typed.asTuned = at("as-tuned").checked;
  try {
    sessionStorage.setItem("nomoat", JSON.stringify({ ...typed, turns }));
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error; // a conversation of millions of characters goes on, and is not kept
  }
}

// ---------------------------------------------------------------- the server

// What a key that is typed in the settings would mend.
class KeyError extends Error {
  where = ""; // nothing was sent on
}

// What went wrong, in the reader's language; the server's own words have the figures.
function failed({ type, code, message }) {
  const known = SAY.wrong[type] ?? SAY.wrong[code] ?? SAY.wrong.other;
  return Object.assign(new Error(known ? `${known} (${message})` : message), { code });
}

// The server itself says more: this is a proxy's page, with the status alone to go by. With 502 it does not reach the server.
function refused(status) {
  const said = status === 502 ? SAY.lost : (SAY.refused[status] ?? SAY.refused.other);
  return new Error(`${said} (HTTP ${status})`);
}

function brokenOff(error) {
  return error.name === "AbortError" ? error : new Error(SAY.lost);
}

async function call(path, options = {}) {
  const key = at("key").value.trim();
  if (!SENDABLE.test(key)) throw new KeyError(SAY.oddKey);
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw brokenOff(error);
  }
  if (response.status === 401) throw new KeyError(key ? SAY.wrongKey : SAY.needsKey);
  if (response.ok) return response;
  const error = (await response.json().catch(() => null))?.error;
  throw Object.assign(error?.message ? failed(error) : refused(response.status), { where: decided(response.headers) });
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw brokenOff(error);
    });
    if (done) throw new Error(SAY.lost); // an answer that is whole ends with [DONE]
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith(":")) continue; // a sign that the server is at work
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const body = JSON.parse(data);
      if (body.error) throw failed(body.error);
      yield body;
    }
  }
}

async function asHtml(markdown) {
  return (await call("web/markdown", { method: "POST", body: markdown })).json();
}

async function listModels() {
  models = (await (await call("v1/models")).json()).data;
  const first = models.find((model, place) => canChat(model) && (model.local || place === 0));
  const chosen = at("model").value || kept.model || first?.id;
  const names = models.map(({ id }) => id.replace(/^https?:\/\/[^#]*#(?=.)/, "")); // without the server's address
  const nameOf = (id, place) => (names.indexOf(names[place]) === names.lastIndexOf(names[place]) ? names[place] : id);
  const options = models.map(({ id }, place) => new Option(nameOf(id, place), id, false, id === chosen));
  if (chosen && !options.some(({ selected }) => selected)) {
    // Another model, perhaps of another server, is not to be sent a conversation that nobody chose it for.
    options.unshift(new Option(chosen, chosen, false, true));
    options[0].disabled = true;
  }
  at("model").replaceChildren(...options);
  tellAbout();
}

// The models, or why there are none yet; the box for the key is opened where that is what is missing, unless a question is
// being typed: at the start the focus is in its box by itself.
async function tryModels({ isStart = false } = {}) {
  try {
    await listModels();
    clearTimeout(nextLook);
    nextLook = 0;
    if (document.activeElement === at("key")) closeSettings(at("question"));
    const plain = [...at("talk").children].filter(({ isPlain, turn }) => isPlain && turn.facts !== undefined);
    if (plain.length) quietly(plain.map(showWhole)); // the server may render them by now
  } catch (error) {
    tell(error.message);
    clearTimeout(nextLook);
    if (error.code === "loading" || (nextLook && !(error instanceof KeyError))) nextLook = setTimeout(tryModels, LOADING_MS);
    const isAsking = document.activeElement === at("question") && !(isStart && at("question").value === (kept.question ?? ""));
    if (!(error instanceof KeyError) || isAsking) return;
    at("settings").open = true;
    at("key").focus();
  }
}

function chosenModel() {
  return models.find(({ id }) => id === at("model").value);
}

// Of a model that is elsewhere nobody knows.
function canChat(model) {
  return Boolean(model) && model.chats !== false;
}

function tellAbout() {
  const model = chosenModel();
  at("model").title = at("model").value;
  at("words").hidden = !model?.question;
  if (!model) return tell(SAY.gone(at("model").value));
  if (!canChat(model)) return tell([SAY.mute(model.id), models.some(canChat) && SAY.others].filter(Boolean).join(" "));
  const where = model.id === "auto" ? SAY.routed : { true: SAY.here, false: SAY.away(model.id) }[model.local];
  tell([where, model.licence && SAY.licence(model.licence), model.question && SAY.tuned].filter(Boolean).join(" "));
}

// A screen reader reads it whenever it is written.
function tell(text) {
  if (at("about").textContent !== text) at("about").textContent = text;
}

// ---------------------------------------------------------------- what is shown

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(text, onClick) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", () => onClick(made));
  return made;
}

function copyButton(title, textOf) {
  const made = button(SAY.copy, (pressed) => copy(textOf(pressed), pressed));
  made.ariaLabel = title;
  made.ariaLive = "off"; // what it says for a moment is no part of the conversation
  return made;
}

async function copy(text, pressed) {
  const isCopied = navigator.clipboard ? await navigator.clipboard.writeText(text).then(() => true, () => false) : copySelected(text);
  pressed.focus();
  pressed.textContent = isCopied ? SAY.copied : SAY.uncopied;
  announce([pressed.textContent]);
  setTimeout(() => (pressed.textContent = SAY.copy), SAID_MS);
}

// A screen reader reads it when it is written, each part in its language. It does not stay: whoever reads on from the conversation
// would meet it again.
function announce(parts) {
  const said = parts.filter(Boolean).map((text) => element("p", "", text));
  for (const part of said) part.lang = languageOf(part.textContent);
  at("now").replaceChildren(...said);
  setTimeout(() => {
    for (const part of said) part.remove();
  }, SAID_MS);
}

// Browsers have no clipboard for pages that come from another machine over plain http.
function copySelected(text) {
  const place = element("textarea", "copied");
  place.value = text;
  document.body.append(place);
  place.select();
  const copied = document.execCommand("copy");
  place.remove();
  return copied;
}

// The article of a turn at the end of the conversation; of an answer with the place of what is known of it.
function show(turn) {
  const article = element("article", turn.role);
  article.turn = turn;
  article.ariaBusy = turn.role === "assistant" && turn.facts === undefined;
  article.append(element("h2", "", SAY[turn.role]), element("div", "text plain", turn.content));
  article.lastChild.lang = languageOf(turn.content);
  at("talk").append(article);
  if (turn.role === "assistant") {
    article.ariaLive = "off"; // of what grew while it was busy some screen readers read each piece, others never any: see `announceAnswer`
    article.append(element("p", "wrong"), element("p", "facts"));
    if (turn.facts !== undefined) article.rendering = finish(article);
  }
  showEnd();
  return article;
}

// A quarter of Hangul makes a text Korean, for each of its letters is a syllable. Of what language others are nobody knows:
// on an English page they are taken for English, on a Korean one a screen reader has its usual voice for them.
function languageOf(text) {
  const [letters, hangul] = [/\p{L}/gu, /\p{sc=Hangul}/gu].map((kind) => text.match(kind)?.length ?? 0);
  if (4 * hangul > letters) return "ko";
  return LANGUAGE === "ko" && letters ? "" : LANGUAGE;
}

// Whoever has scrolled up reads on there.
function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = at("talk");
  return scrollHeight - scrollTop - clientHeight < 80;
}

function showEnd() {
  at("talk").scrollTop = at("talk").scrollHeight;
}

// An answer's text as it is now: rendered, or as it was written where the server renders no text so long, or is gone.
async function showText(article) {
  const [, text] = article.children;
  const html = article.isPlain ? null : await asHtml(article.turn.content).catch(() => null);
  article.isPlain = html === null; // from here on, until the answer is whole
  const atEnd = isAtEnd();
  text.classList.toggle("plain", article.isPlain);
  text.lang = languageOf(article.turn.content);
  const made = document.createElement("template");
  if (article.isPlain) made.content.append(article.turn.content);
  else made.innerHTML = html; // made by the server's Markdown renderer, which lets no HTML through
  for (const block of made.content.querySelectorAll("pre")) {
    inside("code", block).append(copyButton(SAY.copyCode, codeBeside));
    scrolledByKeys(block, SAY.code);
  }
  for (const block of made.content.querySelectorAll("table")) scrolledByKeys(inside("table", block), SAY.table);
  for (const block of made.content.children) {
    block.dir = "auto";
    block.lang = languageOf(block.textContent);
  }
  turnInto(text, made.content);
  if (atEnd) showEnd();
}

// Gives a place what another holds. What is in both stays, and with it what is focused, selected and scrolled there.
function turnInto(place, other) {
  const [olds, news] = [[...place.childNodes], [...other.childNodes]];
  for (const gone of olds.slice(news.length)) gone.remove();
  for (const [number, made] of news.entries()) {
    const old = olds[number];
    if (!old) place.append(made);
    else if (old.localName === "button" || old.isEqualNode(made)) continue; // a button may say that it was pressed
    else if (old.nodeType === Node.TEXT_NODE && made.data?.startsWith(old.data)) old.appendData(made.data.slice(old.length));
    else if (old.cloneNode().isEqualNode(made.cloneNode())) turnInto(old, made);
    else old.replaceWith(made);
  }
}

function codeBeside(pressed) {
  return pressed.previousElementSibling.textContent.replace(/\n$/, ""); // a terminal would run what is pasted
}

// What may be too wide; a screen reader says the name where the focus gets there.
function scrolledByKeys(block, name) {
  block.tabIndex = 0;
  block.role = "group";
  block.ariaLabel = name;
}

function inside(className, block) {
  const place = element("div", className);
  block.replaceWith(place);
  place.append(block);
  return place;
}

// The text of an answer that is being written, until nothing has come since: one rendering at a time, each of the whole text.
async function showPieces(article) {
  if (article.isGrowing) return;
  article.isGrowing = true;
  const { turn } = article;
  for (let shown = ""; shown !== turn.content && turn.facts === undefined; ) {
    shown = turn.content;
    const began = performance.now();
    article.rendering = showText(article);
    await article.rendering;
    const took = performance.now() - began;
    if (performance.now() - keptAt > KEEP_MS) keep();
    const pause = Math.min(Math.max(MIN_PAUSE_MS, PAUSE_SHARE * took), MAX_PAUSE_MS);
    await new Promise((done) => setTimeout(done, pause));
  }
  article.isGrowing = false;
}

async function finish(article) {
  const { turn } = article;
  const [, , wrong, facts] = article.children;
  const atEnd = isAtEnd();
  wrong.textContent = turn.wrong ?? "";
  const again = button(SAY.again, askAgain);
  again.className = "again";
  facts.replaceChildren(turn.facts, copyButton(SAY.copyAnswer, () => turn.content), again);
  if (atEnd) showEnd();
  await article.rendering; // of what was there before the end
  await showWhole(article);
  article.ariaBusy = false;
}

// An answer is read once, when it is whole.
function announceAnswer(article) {
  const { turn, children } = article;
  const words = children[1].cloneNode(true);
  for (const pressed of words.querySelectorAll("button")) pressed.remove();
  announce([words.textContent, turn.wrong, turn.facts]);
}

async function showWhole(article) {
  article.isPlain = false;
  await showText(article);
}

// While old answers are rendered, no screen reader is told of them.
async function quietly(renderings) {
  numQuiet += 1;
  at("talk").ariaBusy = true;
  await Promise.allSettled(renderings);
  await new Promise((done) => setTimeout(done, QUIET_MS));
  numQuiet -= 1;
  at("talk").ariaBusy = numQuiet > 0;
}

function showWriting(isWriting) {
  at("send").textContent = isWriting ? SAY.stop : SAY.send;
  at("now").textContent = isWriting ? SAY.writing : "";
  for (const id of ["fresh", "model"]) at(id).disabled = isWriting;
  document.body.toggleAttribute("data-writing", isWriting);
}

// ---------------------------------------------------------------- asking

// What was said so far, or these turns of it, without questions that got no answer; each as a message.
function said(some, asMessage = ({ role, content }) => ({ role, content })) {
  const system = at("system").value.trim();
  const heard = some.filter((turn, place) => turn.content && some[place + 1]?.content !== "");
  return [...(system ? [{ role: "system", content: system }] : []), ...heard.map((turn) => asMessage(turn))];
}

// Conversations one after another: what was said in turn, and each of a table's questions, which has nothing before it.
function conversations() {
  const alone = turns.map((turn, place) => turn.isAlone || (turn.role === "assistant" && turns[place - 1]?.isAlone));
  const pairs = turns.flatMap((turn, place) => (turn.isAlone ? [turns.slice(place, place + 2)] : []));
  return [turns.filter((_, place) => !alone[place]), ...pairs];
}

// The answer to the last question, in place of the one `before`, if that is given.
async function answer(before) {
  const { isAlone } = turns.at(-1);
  const messages = said(isAlone ? turns.slice(-1) : conversations()[0]);
  const temperature = isAlone ? "0" : at("temperature").value; // of a table's labels the likeliest is the answer, as in `duel`
  const turn = { role: "assistant", content: "", isWhole: false, before };
  const article = show(turn);
  turns.push(turn);
  keep();
  writing = new AbortController();
  showWriting(true);
  try {
    await write(article, messages, temperature);
  } catch (error) {
    turn.where = error.where ?? turn.where;
    if (error.name !== "AbortError") turn.wrong = error.message;
  } finally {
    writing = null;
    showWriting(false);
    end(turn);
    finish(article).then(() => announceAnswer(article));
    keep();
    listModels().catch(() => {}); // what a model may be used for is known now
  }
}

// An attempt that brought nothing leaves the answer that it was to replace, with what went wrong, and where if that is elsewhere.
function end(turn) {
  turn.facts ??= [!turn.wrong && SAY.stopped, turn.where].filter(Boolean).join(" · ");
  const { before } = turn;
  delete turn.before;
  if (!before?.content || turn.content) return;
  const elsewhere = turn.where !== before.where && turn.where;
  const wrong = elsewhere ? [turn.wrong ?? SAY.stopped, elsewhere].join(" · ") : (turn.wrong ?? before.wrong);
  Object.assign(turn, before, { wrong });
}

async function write(article, messages, temperature) {
  const { turn } = article;
  const asked = {
    model: at("model").value,
    messages,
    ...(temperature && { temperature: Number(temperature) }),
    ...(at("limit").value && { max_tokens: Number(at("limit").value) }),
    stream: true,
    stream_options: { include_usage: true },
  };
  if (asked.model === "auto") turn.where = SAY.untold; // of the cloud the server says so with the first word
  const response = await call("v1/chat/completions", { method: "POST", body: JSON.stringify(asked), signal: writing.signal });
  turn.where = decided(response.headers); // also of an answer that is stopped, or breaks off: its question was sent there
  let [first, last, pieces, tokens, reason] = [0, 0, 0, null, ""];
  for await (const event of eventsOf(response)) {
    const [choice] = event.choices;
    const piece = choice?.delta?.content ?? "";
    tokens = event.usage?.completion_tokens ?? tokens;
    reason = choice?.finish_reason ?? reason;
    if (!piece) continue;
    last = performance.now();
    first ||= last;
    pieces += 1;
    turn.content += piece;
    showPieces(article);
  }
  const seconds = (last - first) / 1000;
  const speed = tokens > 1 && pieces >= MIN_PIECES && seconds >= MIN_SECONDS ? Math.round((tokens - 1) / seconds) : 0;
  const ended = { length: SAY.cut, content_filter: SAY.filtered }[reason];
  const counted = tokens === null ? SAY.uncounted : SAY.facts(tokens, speed); // a server behind this one may not count them
  turn.isWhole = !ended;
  turn.facts = [counted, ended, turn.where].filter(Boolean).join(" · ");
}

// Of `auto` alone: where the answer was written, by which model, and why there.
function decided(headers) {
  const told = (name) => decodeURIComponent(headers.get(`x-nomoat-${name}`) ?? "");
  return [SAY.where[told("where")] ?? told("where"), told("model"), SAY.why[told("rule")] ?? told("why")].filter(Boolean).join(", ");
}

// Whether a question may be sent now; else the page shows what is missing.
async function isReady() {
  if (writing || !areFit()) return false;
  if (!chosenModel()) await tryModels();
  if (!canChat(chosenModel()) && models.length) at("model").focus();
  return canChat(chosenModel()) && !writing;
}

// Whether the server would take the settings; else the browser says at the box what is wrong with them.
function areFit() {
  const wrong = ["temperature", "limit"].find((id) => {
    const { badInput, rangeUnderflow, rangeOverflow, stepMismatch } = at(id).validity;
    return badInput || rangeUnderflow || rangeOverflow || (id === "limit" && stepMismatch);
  });
  at("settings").open = wrong !== undefined;
  if (wrong) at(wrong).reportValidity();
  return !wrong;
}

// See `labelling.put_question`; a text that is the whole question already stays. Punctuation alone, and the marks of tags, quotes and
// code, tell nothing: any text may have them. An arrow does.
function putQuestion(question, text) {
  const place = question.lastIndexOf(TEXT);
  const [before, after] = [question.slice(0, place), question.slice(place + TEXT.length)];
  const [begins, ends] = [before.trimStart(), after.trimEnd()];
  const isWhole = /[^\p{P}\s<>`]|->|\n/u.test(begins + ends) && text.startsWith(begins) && text.endsWith(ends);
  return isWhole ? text : before + text.normalize("NFC") + after;
}

async function ask() {
  if (!at("question").value.trim() || !(await isReady())) return;
  const text = at("question").value.trim(); // which may have gone on while the models were listed
  if (!text) return;
  at("question").value = "";
  fit();
  const question = at("as-tuned").checked && chosenModel()?.question;
  turns.push(question ? { role: "user", content: putQuestion(question, text), isAlone: true } : { role: "user", content: text });
  show(turns.at(-1));
  answer();
}

// Another answer to the last question.
async function askAgain() {
  if (!(await isReady()) || turns.at(-1)?.role !== "assistant") return;
  const before = turns.pop();
  at("talk").lastElementChild.remove(); // with the button that was pressed
  at("send").focus();
  answer(before);
}

function startAnew() {
  turns = [];
  at("talk").replaceChildren();
  keep();
  at("question").focus();
}

// The conversations that hold a whole answer, each a line of chat JSONL, which `nomoat tune` reads; it learns no other answers of them.
function save() {
  const asMessage = ({ role, content, isWhole }) => ({ role, content, ...(role === "assistant" && !isWhole && { weight: 0 }) });
  const isLearned = ({ role, weight }) => role === "assistant" && weight !== 0;
  const lessons = conversations().map((some) => said(some, asMessage)).filter((messages) => messages.some(isLearned));
  if (!lessons.length) return tellUnsaved(turns.length ? SAY.unsaved : SAY.unsaid);
  download("conversation.jsonl", lessons.map((messages) => `${JSON.stringify({ messages })}\n`));
}

// What the page shows, for people: questions without an answer, and what is known of each answer, too.
function saveText() {
  if (!turns.length) return tellUnsaved(SAY.unsaid);
  const system = at("system").value.trim();
  const linesOf = ({ content, wrong, facts }) => [content, wrong && `(${wrong})`, facts && `(${facts})`].filter(Boolean).join("\n");
  const shown = turns.map((turn) => `${SAY[turn.role]}: ${linesOf(turn)}\n`);
  if (system) shown.unshift(`${SAY.system}: ${system}\n`);
  download("conversation.txt", [shown.join("\n")]);
}

function tellUnsaved(why) {
  const told = [SAY.unsaid, SAY.unsaved].reduce((text, said) => text.replace(said, ""), at("about").textContent);
  tell(`${why} ${told.trimStart()}`);
}

function download(name, texts) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(texts));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

// The question's box grows with its text.
function fit() {
  at("question").style.height = "auto";
  at("question").style.height = `${at("question").scrollHeight + 2}px`;
}

// What was typed in them counts, and the keyboard goes on at `next`.
function closeSettings(next) {
  if (at("settings").contains(document.activeElement)) document.activeElement.blur();
  at("settings").open = false;
  next?.focus();
}

// While a Korean syllable is being composed, Enter ends the syllable and Escape takes it back, and neither does anything else.
function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

document.documentElement.lang = LANGUAGE;
at("talk").ariaLabel = SAY.talk;
if (BY_TOUCH.matches) at("question").dataset.sayPlaceholder = "askByTouch";
for (const place of document.querySelectorAll("[data-say]")) place.textContent = SAY[place.dataset.say];
for (const place of document.querySelectorAll("[data-say-title]")) {
  const title = SAY[place.dataset.sayTitle];
  if (title) place.title = place.ariaLabel = title;
}
for (const place of document.querySelectorAll("[data-say-placeholder]")) {
  place.placeholder = SAY[place.dataset.sayPlaceholder];
  place.ariaLabel = SAY[place.dataset.sayPlaceholder];
}
for (const id of KEPT) {
  if (id !== "model" && kept[id] !== undefined) at(id).value = kept[id];
  at(id).addEventListener("change", keep);
}
at("key").addEventListener("change", () => tryModels());
at("as-tuned").checked = kept.asTuned ?? true;
at("as-tuned").addEventListener("change", keep);
at("model").addEventListener("change", tellAbout);
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (writing) writing.abort();
  else ask();
});
at("question").addEventListener("input", fit);
window.addEventListener("resize", fit);
at("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || BY_TOUCH.matches || isComposing(event)) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || isComposing(event)) return;
  if (at("settings").open) closeSettings(at("settings").firstElementChild);
  else writing?.abort();
});
document.addEventListener("pointerdown", (event) => {
  if (at("settings").open && !at("settings").contains(event.target)) closeSettings();
});
at("settings").addEventListener("focusout", ({ relatedTarget }) => {
  if (relatedTarget && !at("settings").contains(relatedTarget)) at("settings").open = false;
});
// Before the browser itself breaks the answer off, which would look as if the server were gone; telephones know the second alone.
for (const leaving of ["beforeunload", "pagehide"]) {
  window.addEventListener(leaving, () => {
    writing?.abort();
    keep();
  });
}
at("fresh").addEventListener("click", startAnew);
at("save").addEventListener("click", save);
at("save-text").addEventListener("click", saveText);
for (const turn of turns) if (turn.role === "assistant") end(turn); // the page was closed or loaded anew meanwhile
quietly(turns.map((turn) => show(turn).rendering));
fit();
tryModels({ isStart: true });
