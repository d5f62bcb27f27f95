// "This answer is better": marks both stored answers to one question, for students that learn from pairs.

import { useMutation } from "@tanstack/react-query";
import { post } from "../../api/http";
import { type Translate, useText } from "../../i18n";
import { Button, ErrorNote, useToast } from "../../ui";
import { type Answer, SIDES, type Side } from "./answer";
import styles from "./playground.module.css";

/** The metadata that the server makes pairs by. */
const KEY = "preference";

interface PreferenceProps {
  answers: Record<Side, Answer>;
}

export function Preference({ answers }: PreferenceProps) {
  const t = useText();
  const toast = useToast();
  const marking = useMutation({
    mutationFn: async (better: Side) => {
      const mark = (side: Side) =>
        post(`/v1/chat/completions/${encodeURIComponent(answers[side].stored ?? "")}`, {
          metadata: { [KEY]: side === better ? "preferred" : "rejected" },
        });
      await Promise.all(SIDES.map(mark));
    },
    onSuccess: (_, better) => toast({ message: t("playground.better_done", { name: answers[better].model }) }),
  });
  if (!SIDES.every((side) => answers[side].stored)) {
    return <p className="small quiet">{t("playground.better_store")}</p>;
  }
  return (
    <>
      <fieldset className={styles.preference}>
        <legend className="unseen">{t("playground.better_which")}</legend>
        {SIDES.map((side) => {
          const isChosen = marking.variables === side && !marking.isError;
          return (
            <Button
              key={side}
              {...(isChosen && marking.isSuccess ? { icon: "check" as const } : {})}
              aria-pressed={isChosen}
              aria-label={nameOf(isChosen, answers[side], t)}
              busy={isChosen && marking.isPending}
              onClick={() => marking.mutate(side)}
            >
              {t(isChosen ? "playground.better_chosen" : "playground.better")}
            </Button>
          );
        })}
      </fieldset>
      {marking.error && <ErrorNote error={marking.error} />}
    </>
  );
}

const nameOf = (isChosen: boolean, answer: Answer, t: Translate): string =>
  `${t(isChosen ? "playground.better_chosen" : "playground.better")}: ${answer.model}`;
