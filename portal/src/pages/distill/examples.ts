// Rows as the sample shows them: the first ones of a training file, and stored completions.

import { lastQuestion, messagesOf, wordsOf } from "../../api/messages";
import type { ChatMessage, CompletionRow } from "../../api/types";
import { beginningOf } from "../files/beginning";

export interface Example {
  id: string;
  question: string;
  answer: string;
  calls: string[];
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
      return messages ? [exampleOf(messages, `${index}`)] : [];
    });
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
