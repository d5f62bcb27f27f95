// The turns of a conversation, and the asking of both sides at once.

import { useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError, open } from "../../api/http";
import { type Answer, begin, grown, SIDES, type Side, type Turn } from "./answer";
import { requestOf, type Settings } from "./settings";
import { chatEvents } from "./stream";

export type Chosen = Record<Side, string>;

export interface Conversation {
  turns: Turn[];
  running: boolean;
  ask: (prompt: string, chosen: Chosen, settings: Settings) => void;
  /** Asks one side of the last turn once more. */
  again: (side: Side, model: string, settings: Settings) => void;
  stop: () => void;
  clear: () => void;
}

/** The server ended a stream without saying that the answer is whole. */
export class BrokenOff extends Error {}

export function useConversation(): Conversation {
  const client = useQueryClient();
  const [turns, setTurns] = useState<Turn[]>([]);
  const [under, setUnder] = useState(0);
  const asked = useRef(new Set<AbortController>());
  const next = useRef(1);

  const stop = useCallback(() => {
    for (const controller of asked.current) controller.abort();
  }, []);
  useEffect(() => stop, [stop]);

  const run = async (turn: number, side: Side, model: string, body: Record<string, unknown>) => {
    const controller = new AbortController();
    asked.current.add(controller);
    setUnder((count) => count + 1);
    const show = (answer: Answer) =>
      setTurns((all) => all.map((one) => (one.id === turn ? { ...one, [side]: answer } : one)));
    show(await answered(model, body, controller.signal, show));
    asked.current.delete(controller);
    setUnder((count) => count - 1);
    // What the answer used is counted, and a student that it asked is loaded now.
    client.invalidateQueries({ queryKey: ["deployments"] });
  };

  const ask = (prompt: string, chosen: Chosen, settings: Settings) => {
    const id = next.current++;
    const sides = SIDES.filter((side) => chosen[side]);
    const now = performance.now();
    const answers = Object.fromEntries(sides.map((side) => [side, begin(chosen[side], now)]));
    setTurns((all) => [...all, { id, prompt, left: null, right: null, ...answers }]);
    for (const side of sides) run(id, side, chosen[side], requestOf(chosen[side], settings, turns, side, prompt));
  };

  const again = (side: Side, model: string, settings: Settings) => {
    const turn = turns.at(-1);
    if (turn) run(turn.id, side, model, requestOf(model, settings, turns.slice(0, -1), side, turn.prompt));
  };

  const clear = () => {
    stop();
    setTurns([]);
  };

  return { turns, running: under > 0, ask, again, stop, clear };
}

/** Asks, shows the answer as it grows, and gives how it ended. */
async function answered(
  model: string,
  body: Record<string, unknown>,
  signal: AbortSignal,
  show: (answer: Answer) => void,
): Promise<Answer> {
  let answer = begin(model, performance.now());
  const painter = paintWith(() => show(answer));
  const ended = (end: Partial<Answer>): Answer => ({ ...answer, total: performance.now() - answer.started, ...end });
  show(answer);
  try {
    const { body: stream } = await open("/v1/chat/completions", body, signal);
    if (!stream) throw new BrokenOff();
    for await (const event of chatEvents(stream)) {
      if (event.kind === "done") return ended({ state: "done" });
      if (event.kind === "error") throw new ApiError(event.message, 502, event.code);
      answer = grown(answer, event, performance.now(), body.store === true);
      painter.soon();
    }
    throw new BrokenOff();
  } catch (error) {
    if (signal.aborted) return ended({ state: "stopped" });
    // A connection that is lost on the way is the browser's TypeError.
    return ended({ state: "failed", error: error instanceof TypeError ? new BrokenOff() : error });
  } finally {
    painter.end();
  }
}

/** Paints once a frame at most: tokens come faster than anybody reads. */
function paintWith(paint: () => void): { soon: () => void; end: () => void } {
  let waiting = 0;
  const now = () => {
    waiting = 0;
    paint();
  };
  return {
    soon: () => {
      waiting ||= requestAnimationFrame(now);
    },
    end: () => cancelAnimationFrame(waiting),
  };
}
