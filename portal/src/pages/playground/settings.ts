// What a question is asked with besides its words, and the request that it makes.

import type { ChatMessage } from "../../api/types";
import type { Answer, Side, Turn } from "./answer";

/** As typed: an empty text leaves the parameter out. */
export interface Settings {
  system: string;
  temperature: string;
  maxTokens: string;
  topP: string;
  seed: string;
  stop: string;
  store: boolean;
  metadata: Pair[];
}

export interface Pair {
  id: number;
  key: string;
  value: string;
}

export const AT_FIRST: Settings = {
  system: "",
  temperature: "0",
  maxTokens: "",
  topP: "",
  seed: "",
  stop: "",
  store: false,
  metadata: [],
};

/** The limits that the fields say; the server has the last word. */
export const LIMITS = {
  temperature: { min: 0, max: 2, whole: false },
  maxTokens: { min: 1, max: 1_000_000, whole: true },
  topP: { min: 0, max: 1, whole: false },
  seed: { min: -9_007_199_254_740_991, max: 9_007_199_254_740_991, whole: true },
} as const;

export type NumberField = keyof typeof LIMITS;
export const NUMBER_FIELDS = Object.keys(LIMITS) as NumberField[];
const MOST_STOPS = 4;

export function isWrong(field: NumberField, text: string): boolean {
  if (text.trim() === "") return false;
  const value = Number(text);
  const { min, max, whole } = LIMITS[field];
  return !Number.isFinite(value) || value < min || value > max || (whole && !Number.isInteger(value));
}

export const stopsOf = (text: string): string[] => text.split("\n").filter((line) => line !== "");

export function hasProblem(settings: Settings): boolean {
  return NUMBER_FIELDS.some((field) => isWrong(field, settings[field])) || stopsOf(settings.stop).length > MOST_STOPS;
}

/** The body of the chat completion that asks `model`, with what was said on its side before. */
export function requestOf(
  model: string,
  settings: Settings,
  before: Turn[],
  side: Side,
  prompt: string,
): Record<string, unknown> {
  const stops = stopsOf(settings.stop);
  const pairs = settings.metadata.filter((pair) => pair.key.trim());
  return {
    model,
    messages: messagesOf(settings.system, before, side, prompt),
    stream: true,
    stream_options: { include_usage: true },
    ...numberOf("temperature", settings.temperature),
    ...numberOf("max_tokens", settings.maxTokens),
    ...numberOf("top_p", settings.topP),
    ...numberOf("seed", settings.seed),
    ...(stops.length ? { stop: stops } : {}),
    ...(settings.store ? { store: true } : {}),
    ...(settings.store && pairs.length
      ? { metadata: Object.fromEntries(pairs.map(({ key, value }) => [key.trim(), value])) }
      : {}),
  };
}

/** Each side has a history of its own; a turn it did not answer is none of it. */
export function messagesOf(system: string, before: Turn[], side: Side, prompt: string): ChatMessage[] {
  const said = before.flatMap((turn): ChatMessage[] => {
    const answer: Answer | null = turn[side];
    if (!answer?.text || answer.state === "failed") return [];
    return [
      { role: "user", content: turn.prompt },
      { role: "assistant", content: answer.text },
    ];
  });
  return [...(system.trim() ? [{ role: "system", content: system }] : []), ...said, { role: "user", content: prompt }];
}

function numberOf(name: string, text: string): Record<string, number> {
  return text.trim() === "" ? {} : { [name]: Number(text) };
}
