// Rows as the sample shows them: the first ones of a training file, and stored completions.

import { lastQuestion, messagesOf, said, wordsOf } from "../../api/messages";
import type { ChatMessage, CompletionRow } from "../../api/types";
import { beginningOf } from "../files/beginning";

export interface Example {
  id: string;
  question: string;
  answer: string;
  calls: string[];
  /** Of a preference pair: the answer that is not preferred. */
  worse?: string;
}

const LONGEST = 200;
/** Rows may be long; the first few should be among these. */
const ENOUGH_BYTES = 400_000;

export async function firstExamples(file: string, count: number, signal: AbortSignal): Promise<Example[]> {
  const { lines } = await beginningOf(file, signal, ENOUGH_BYTES);
  return lines
    .filter((line) => line.trim())
    .slice(0, count)
    .flatMap((line, index) => {
      const messages = messagesOf(line);
      if (messages) return [exampleOf(messages, `${index}`)];
      const pair = pairOf(line);
      return pair ? [exampleOfPair(pair, `${index}`)] : [];
    });
}

/** A preference pair: what was asked, the better answer and the worse. */
export interface Pair {
  messages: ChatMessage[];
  better: ChatMessage | undefined;
  worse: ChatMessage | undefined;
}

/** The pair that a line of a training file is; null when it is none. Both spellings are OpenAI's. */
export function pairOf(line: string): Pair | null {
  try {
    const row = JSON.parse(line) as Record<string, unknown>;
    const { messages } = (row.input ?? {}) as { messages?: unknown };
    const answer = (name: string) => [row[`${name}_output`] ?? row[`${name}_completion`]].flat()[0] as ChatMessage;
    return Array.isArray(messages) ? { messages, better: answer("preferred"), worse: answer("non_preferred") } : null;
  } catch {
    return null;
  }
}

function exampleOfPair({ messages, better, worse }: Pair, id: string): Example {
  return {
    id,
    question: shortened(wordsOf(lastQuestion(messages))),
    answer: shortened(said(better)),
    calls: [],
    worse: shortened(said(worse)),
  };
}

export const storedExample = ({ id, question, answer, tool_calls: calls }: CompletionRow): Example => ({
  id,
  question,
  answer,
  calls,
});

function exampleOf(messages: ChatMessage[], id: string): Example {
  const answer = messages.findLast((message) => message.role === "assistant");
  return {
    id,
    question: shortened(wordsOf(lastQuestion(messages))),
    answer: shortened(wordsOf(answer)),
    calls: (answer?.tool_calls ?? []).map((call) => call.function?.name ?? ""),
  };
}

const shortened = (text: string): string => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
