// Which model is asked on which side. It is in the address, so that a reload or a link asks the same.

import { useEffect } from "react";
import { useAddress } from "../../ui";
import type { Side } from "./answer";
import type { Chosen } from "./conversation";
import { firstPair, type Names, teacherOf, useOverview } from "./names";

/** `model` names one to try, on whichever side it belongs. */
const ONE = "model";

export function useChosen(names: Names | null): { chosen: Chosen; ready: boolean; choose: (next: Chosen) => void } {
  const { address: search, set } = useAddress();
  const open = !search.has("left") || !search.has("right");
  // A single teacher was the teacher; only a choice needs to know more.
  const mustAsk = open && names !== null && names.all.filter((one) => one.isTeacher).length > 1;
  const overview = useOverview(mustAsk);
  const settled = !mustAsk || !overview.isPending;

  const choose = (next: Chosen) => set({ ...next, [ONE]: null });

  // biome-ignore lint/correctness/useExhaustiveDependencies: once, when what is needed to choose is there
  useEffect(() => {
    if (!open || !names || !settled) return;
    const given = (side: Side) => search.get(side);
    choose(completed(given("left"), given("right"), search.get(ONE), names, overview.data));
  }, [open, names !== null, settled]);

  return {
    chosen: { left: search.get("left") ?? "", right: search.get("right") ?? "" },
    ready: !open,
    choose,
  };
}

/** Both sides, of what the address says of them: a student is put beside its teacher. */
function completed(
  left: string | null,
  right: string | null,
  one: string | null,
  names: Names,
  overview: Parameters<typeof firstPair>[1],
): Chosen {
  const isTeacher = (name: string) => names.all.some((known) => known.name === name && known.isTeacher);
  if (one !== null && left === null && right === null) {
    if (isTeacher(one)) return { left: one, right: firstPair(names, overview).right };
    return { left: teacherOf(one, names, overview), right: one };
  }
  if (left !== null) return { left, right: isTeacher(left) ? firstPair(names, overview).right : "" };
  if (right !== null) return { left: teacherOf(right, names, overview), right };
  return firstPair(names, overview);
}
