// One side's answer while it grows and when it is there; and whether two answers say the same.

import type { Price } from "../../api/types";
import type { ChatEvent, Usage } from "./stream";

export interface Answer {
  model: string;
  state: "running" | "done" | "stopped" | "failed";
  text: string;
  reasoning: string;
  finish: string | null;
  usage: Usage | null;
  /** The stored completion's id; null when it was not asked to be stored. */
  stored: string | null;
  error: unknown;
  started: number;
  /** Milliseconds from the question to the first letter, and to the end. */
  firstToken: number | null;
  total: number | null;
}

export interface Turn {
  id: number;
  prompt: string;
  left: Answer | null;
  right: Answer | null;
}

export type Side = "left" | "right";
export const SIDES: Side[] = ["left", "right"];

/** What an answer came to; `estimated` when the stream told no usage. */
export interface Figures {
  promptTokens: number;
  completionTokens: number;
  microusd: number | null;
  estimated: boolean;
}

const LETTERS_A_TOKEN = 4;
const LAST_LATIN = 0x24f;

export function begin(model: string, now: number): Answer {
  return {
    model,
    state: "running",
    text: "",
    reasoning: "",
    finish: null,
    usage: null,
    stored: null,
    error: null,
    started: now,
    firstToken: null,
    total: null,
  };
}

/** The answer with what an event adds. `done` and `error` are the asker's to deal with. */
export function grown(answer: Answer, event: ChatEvent, now: number, isStored: boolean): Answer {
  if (event.kind === "usage") return { ...answer, usage: event.usage };
  if (event.kind !== "delta") return answer;
  const begun = Boolean(event.text || event.reasoning);
  return {
    ...answer,
    text: answer.text + event.text,
    reasoning: answer.reasoning + event.reasoning,
    finish: event.finish ?? answer.finish,
    stored: isStored ? (event.id ?? answer.stored) : null,
    firstToken: answer.firstToken ?? (begun ? now - answer.started : null),
  };
}

/** Tokens and price; counted by the server, else guessed from the letters of prompt and answer. */
export function figuresOf(answer: Answer, prompt: string, price: Price | undefined): Figures {
  const { usage } = answer;
  const promptTokens = usage?.prompt_tokens ?? guessedTokens(prompt);
  const completionTokens = usage?.completion_tokens ?? guessedTokens(answer.text + answer.reasoning);
  const cached = Math.min(usage?.prompt_tokens_details?.cached_tokens ?? 0, promptTokens);
  const rate = price?.usd_per_million;
  // Dollars for a million tokens are micro-dollars for one.
  const microusd = rate
    ? (promptTokens - cached) * rate.input + cached * rate.cached_input + completionTokens * rate.output
    : null;
  return { promptTokens, completionTokens, microusd, estimated: usage === null };
}

/** About one token for four Latin letters, and for each letter of other scripts. */
export function guessedTokens(text: string): number {
  const letters = [...text];
  const latin = letters.filter((letter) => (letter.codePointAt(0) ?? 0) <= LAST_LATIN).length;
  return Math.ceil(latin / LETTERS_A_TOKEN + letters.length - latin);
}

export type Agreement =
  | { kind: "same" }
  | { kind: "same_data" }
  | { kind: "fields"; fields: string[] }
  | { kind: "different" };

/** How two answers compare: as texts, else as the JSON objects that they are. */
export function agreementOf(left: string, right: string): Agreement {
  const [one, other] = [left.trim(), right.trim()];
  if (one === other) return { kind: "same" };
  const [first, second] = [objectOf(one), objectOf(other)];
  if (!first || !second) return { kind: "different" };
  const names = [...new Set([...Object.keys(first), ...Object.keys(second)])];
  const fields = names.filter((name) => canonical(first[name]) !== canonical(second[name]));
  return fields.length ? { kind: "fields", fields } : { kind: "same_data" };
}

function objectOf(text: string): Record<string, unknown> | null {
  if (!text.startsWith("{")) return null;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null;
  }
}

/** JSON with its names in order, so that equal data are equal texts. */
function canonical(value: unknown): string {
  const ordered = (_: string, inner: unknown) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([one], [other]) => (one < other ? -1 : 1)))
      : inner;
  return JSON.stringify(value, ordered) ?? "";
}
