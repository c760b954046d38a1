// A conversation with one of the server's models. It uses the public API (v1/...) and keeps what was said in this tab alone.

const WHERE_KO = { local: "이 기계", cloud: "클라우드" };
const LICENCE_KO = {
  ...WHERE_KO,
  yes: "가능",
  "yes, if": "조건부 가능",
  "yes, with use restrictions": "가능(용도 제한 있음)",
  no: "불가",
  unknown: "알 수 없음",
};
// Those before a colon, a bracket, a semicolon or the end: `yes, if (Llama 2 Community License)`, `local: no (Y); cloud: unknown`.
const LICENCE_WORDS = /(^|: |; )([a-z, ]+)(?=:| \(|;|$)/g;
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
    fresh: "New conversation",
    ask: "Ask something. Enter sends, Shift+Enter is a new line.",
    send: "Send",
    stop: "Stop",
    copy: "Copy",
    copied: "Copied",
    again: "Again",
    here: "Answers are written on the machine that serves this page. Nothing is sent anywhere else.",
    away: (model) => `${model} runs on another server: what you write is sent there.`,
    routed: "auto: private questions stay on this machine, others may be sent to the cloud of its policy.",
    licence: (verdict) => `Commercial use: ${verdict}.`,
    where: {}, // the server's own words
    why: {},
    cut: "ended at the limit",
    stopped: "stopped",
    filtered: "ended by the server's filter",
    facts: (tokens, speed) => `${tokens} tokens${speed ? `, ${speed} a second` : ""}`,
    lost: "The server cannot be reached. Is `nomoat serve` still running?",
    needsKey: "This server asks for its API key: open the settings.",
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
    fresh: "새 대화",
    ask: "무엇이든 물어보세요. Enter는 보내기, Shift+Enter는 줄바꿈입니다.",
    send: "보내기",
    stop: "멈춤",
    copy: "복사",
    copied: "복사했습니다",
    again: "다시",
    here: "답변은 이 페이지를 띄운 기계에서 만듭니다. 다른 곳으로는 아무것도 보내지 않습니다.",
    away: (model) => `${model}은(는) 다른 서버에서 실행됩니다. 입력한 내용이 그 서버로 전송됩니다.`,
    routed: "auto: 개인정보가 든 질문은 이 기계에 남고, 나머지는 정책에 적힌 클라우드로 갈 수 있습니다.",
    licence: (verdict) => `상업적 이용: ${verdict.replace(LICENCE_WORDS, (all, before, words) => before + (LICENCE_KO[words] ?? words))}.`,
    where: WHERE_KO,
    why: {
      private: "정책이 밖으로 내보내지 않는 개인정보가 들어 있음",
      no_cloud: "정책에 클라우드 모델이 없음",
      offline: "오프라인으로 설정됨",
      cannot_ask: "이 요청은 클라우드로 보낼 수 없음",
      default: "쓸 수 있는 학습된 라우터가 없어 정책의 기본값을 따름",
      learned: "학습된 라우터의 판단",
      budget: "정책의 예산을 넘을 수 있음",
      cloud_failed: "클라우드 모델이 응답하지 못해 정책에 따라 이 기계에서 답함",
    },
    cut: "길이 제한에서 끝남",
    stopped: "멈춤",
    filtered: "서버의 필터가 끝냄",
    facts: (tokens, speed) => `${tokens} 토큰${speed ? `, 초당 ${speed}` : ""}`,
    lost: "서버에 연결할 수 없습니다. `nomoat serve`가 아직 실행 중인가요?",
    needsKey: "이 서버는 API 키가 필요합니다. 설정에서 입력하세요.",
    wrong: {
      body_too_long: "보낸 내용이 너무 깁니다.",
      context_length_exceeded: "모델이 한 번에 읽을 수 있는 길이를 넘었습니다. 새 대화를 시작하거나 내용을 줄이세요.",
      model_not_found: "모델을 찾을 수 없습니다.",
      not_enough_memory: "메모리가 부족합니다.",
      offline: "nomoat가 다른 기계로의 연결을 막았습니다.",
      shutting_down: "서버가 종료되는 중입니다.",
      unsupported: "이 모델이 지원하지 않는 요청입니다.",
      upstream_error: "모델이 실행되는 다른 서버에서 오류가 났습니다.",
    }, // by the error's code
  },
};
const LANGUAGE = navigator.language.startsWith("ko") ? "ko" : "en";
const SAY = WORDS[LANGUAGE];
const KEPT = ["model", "system", "temperature", "limit", "key"]; // of the settings, for this tab
const RENDER_MS = 250; // between two renderings of an answer that is being written

const at = (id) => document.getElementById(id);
const kept = JSON.parse(sessionStorage.getItem("nomoat") ?? "{}");
let turns = kept.turns ?? []; // {role, content, facts}
let models = [];
let writing = null; // the AbortController of the answer that is being written

function keep() {
  const settings = Object.fromEntries(KEPT.map((id) => [id, at(id).value]));
  sessionStorage.setItem("nomoat", JSON.stringify({ ...settings, turns }));
}

// ---------------------------------------------------------------- the server

// What went wrong, in the reader's language where its code is known; the server's own words have the figures.
function failed({ code, message }) {
  const known = SAY.wrong[code];
  return new Error(known ? `${known} (${message})` : message);
}

async function call(path, options = {}) {
  const key = at("key").value.trim();
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(SAY.lost);
  }
  if (response.status === 401) throw new Error(SAY.needsKey);
  if (!response.ok) throw failed((await response.json().catch(() => null))?.error ?? { message: `HTTP ${response.status}` });
  return response;
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
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
  const chosen = at("model").value || kept.model;
  at("model").replaceChildren(...models.map(({ id }) => new Option(id, id, false, id === chosen)));
  tellWhere();
}

function tellWhere() {
  const model = models.find(({ id }) => id === at("model").value);
  if (!model) return;
  const where = { true: SAY.here, false: SAY.away(model.id) }[model.local];
  at("about").textContent = [model.id === "auto" ? SAY.routed : where, model.licence && SAY.licence(model.licence)].filter(Boolean).join(" ");
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

async function copy(text, pressed) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else if (!copySelected(text)) return;
  pressed.focus();
  pressed.textContent = SAY.copied;
  setTimeout(() => (pressed.textContent = SAY.copy), 1500);
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

// The article of a turn at the end of the conversation; of an answer with the place of its text and of what is known of it.
function show(turn) {
  const article = element("article", turn.role, turn.role === "user" ? turn.content : "");
  article.turn = turn;
  article.ariaLabel = SAY[turn.role];
  article.ariaBusy = turn.role === "assistant" && turn.facts === undefined; // a screen reader reads it once it is whole
  at("talk").append(article);
  if (turn.role === "assistant") {
    article.append(element("div", "text plain", turn.content), element("p", "wrong"), element("p", "facts"));
    if (turn.facts !== undefined) finish(article);
  }
  showEnd();
  return article;
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
  const [text] = article.children;
  const html = article.isPlain ? null : await asHtml(article.turn.content).catch(() => null);
  article.isPlain = html === null; // from here on, until the answer is whole
  const atEnd = isAtEnd();
  text.classList.toggle("plain", article.isPlain);
  if (article.isPlain) text.textContent = article.turn.content;
  else text.innerHTML = html; // made by the server's Markdown renderer, which lets no HTML through
  for (const block of text.querySelectorAll("pre")) {
    const code = block.textContent;
    const place = element("div", "code");
    block.replaceWith(place);
    place.append(block, button(SAY.copy, (pressed) => copy(code, pressed)));
  }
  if (atEnd) showEnd();
}

// The text of an answer that is being written, until nothing has come since: one rendering at a time, and RENDER_MS between two.
async function showPieces(article) {
  if (article.isGrowing) return;
  article.isGrowing = true;
  const { turn } = article;
  for (let shown = ""; shown !== turn.content && turn.facts === undefined; ) {
    shown = turn.content;
    article.rendering = showText(article);
    await article.rendering;
    await new Promise((done) => setTimeout(done, RENDER_MS));
  }
  article.isGrowing = false;
}

async function finish(article) {
  const { turn } = article;
  const [, wrong, facts] = article.children;
  const atEnd = isAtEnd();
  wrong.textContent = turn.wrong ?? "";
  const again = button(SAY.again, askAgain);
  again.className = "again";
  facts.replaceChildren(turn.facts, button(SAY.copy, (pressed) => copy(turn.content, pressed)), again);
  if (atEnd) showEnd();
  await article.rendering; // of what was there before the end
  article.isPlain = false;
  await showText(article);
  article.ariaBusy = false;
}

function showWriting(isWriting) {
  at("send").textContent = isWriting ? SAY.stop : SAY.send;
  for (const id of ["fresh", "model"]) at(id).disabled = isWriting;
  document.body.toggleAttribute("data-writing", isWriting);
}

// ---------------------------------------------------------------- asking

// What was said so far, without questions that got no answer.
function said() {
  const system = at("system").value.trim();
  const heard = turns.filter((turn, place) => turn.content && turns[place + 1]?.content !== "");
  return [...(system ? [{ role: "system", content: system }] : []), ...heard.map(({ role, content }) => ({ role, content }))];
}

async function answer() {
  const messages = said();
  const turn = { role: "assistant", content: "" };
  const article = show(turn);
  turns.push(turn);
  writing = new AbortController();
  showWriting(true);
  try {
    await write(article, messages);
  } catch (error) {
    if (error.name === "AbortError") turn.facts = SAY.stopped;
    else turn.wrong = error.message;
  } finally {
    writing = null;
    showWriting(false);
    turn.facts ??= "";
    finish(article);
    keep();
    listModels().catch(() => {}); // what a model may be used for is known now
  }
}

async function write(article, messages) {
  const { turn } = article;
  const asked = {
    model: at("model").value,
    messages,
    temperature: Number(at("temperature").value),
    ...(at("limit").value && { max_tokens: Number(at("limit").value) }),
    stream: true,
    stream_options: { include_usage: true },
  };
  const response = await call("v1/chat/completions", { method: "POST", body: JSON.stringify(asked), signal: writing.signal });
  let [first, tokens, reason] = [0, 0, ""];
  for await (const event of eventsOf(response)) {
    const [choice] = event.choices;
    const piece = choice?.delta?.content ?? "";
    tokens = event.usage?.completion_tokens ?? tokens;
    reason = choice?.finish_reason ?? reason;
    if (!piece) continue;
    first ||= performance.now();
    turn.content += piece;
    showPieces(article);
  }
  const speed = tokens > 1 ? Math.round((1000 * (tokens - 1)) / (performance.now() - first)) : 0;
  const ended = { length: SAY.cut, content_filter: SAY.filtered }[reason];
  turn.facts = [SAY.facts(tokens, speed), ended, decided(response.headers)].filter(Boolean).join(" · ");
}

// Of `auto` alone: where the answer was written, by which model, and why there.
function decided(headers) {
  const told = (name) => decodeURIComponent(headers.get(`x-nomoat-${name}`) ?? "");
  return [SAY.where[told("where")] ?? told("where"), told("model"), SAY.why[told("rule")] ?? told("why")].filter(Boolean).join(", ");
}

function ask() {
  const content = at("question").value.trim();
  if (!content || writing) return;
  at("question").value = "";
  fit();
  turns.push({ role: "user", content });
  show(turns.at(-1));
  answer();
}

// Another answer to the last question.
function askAgain() {
  if (writing || turns.at(-1)?.role !== "assistant") return;
  turns.pop();
  at("talk").lastElementChild.remove();
  answer();
}

function startAnew() {
  turns = [];
  at("talk").replaceChildren();
  keep();
  at("question").focus();
}

// The conversation as a line of chat JSONL, which `nomoat tune` reads.
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify({ messages: said() })}\n`], { type: "application/jsonl" }));
  link.download = "conversation.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
}

// The question's box grows with its text.
function fit() {
  at("question").style.height = "auto";
  at("question").style.height = `${at("question").scrollHeight + 2}px`;
}

document.documentElement.lang = LANGUAGE;
for (const place of document.querySelectorAll("[data-say]")) place.textContent = SAY[place.dataset.say];
for (const place of document.querySelectorAll("[data-say-placeholder]")) {
  place.placeholder = SAY[place.dataset.sayPlaceholder];
  place.ariaLabel = SAY[place.dataset.sayPlaceholder];
}
for (const id of KEPT) {
  if (id !== "model" && kept[id] !== undefined) at(id).value = kept[id];
  at(id).addEventListener("change", keep);
}
at("key").addEventListener("change", () => listModels().catch((error) => (at("about").textContent = error.message)));
at("model").addEventListener("change", tellWhere);
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (writing) writing.abort();
  else ask();
});
at("question").addEventListener("input", fit);
at("question").addEventListener("keydown", (event) => {
  // While a Korean syllable is being composed, Enter ends the syllable and sends nothing.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") writing?.abort();
});
at("fresh").addEventListener("click", startAnew);
at("save").addEventListener("click", save);
turns.forEach(show);
listModels().catch((error) => {
  at("about").textContent = error.message;
  at("settings").open = error.message === SAY.needsKey;
});
