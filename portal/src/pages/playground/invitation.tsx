import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note, useAddress } from "../../ui";
import styles from "./playground.module.css";
import { newestQuestion, type Question, questionOf } from "./stored";

/** The stored completion that the address names, to be asked again. */
const FROM = "from";

interface InvitationProps {
  models: string[];
  onQuestion: (question: Question) => void;
}

/** Before the first message: what to do, and a question that was really asked. */
export function Invitation({ models, onQuestion }: InvitationProps) {
  const t = useText();
  const asked = models.filter(Boolean);
  const named = useNamedQuestion(onQuestion);
  const taking = useMutation({
    mutationFn: () => newestQuestion(asked),
    onSuccess: (found) => {
      if (found) onQuestion(found);
    },
  });
  const error = named.error ?? taking.error;
  return (
    <div className={styles.invitation}>
      <p className="said">
        {asked.length > 1
          ? t("playground.invitation")
          : asked.length === 1
            ? t("playground.invitation_single", { name: asked[0] ?? "" })
            : t("playground.choose_first")}
      </p>
      <Button icon="completions" busy={taking.isPending} onClick={() => taking.mutate()}>
        {t("playground.take_stored")}
      </Button>
      {taking.data === null && <Note>{t("playground.none_stored")}</Note>}
      {error && <ErrorNote error={error} />}
    </div>
  );
}

function useNamedQuestion(onQuestion: (question: Question) => void) {
  const { address, set } = useAddress();
  const id = address.get(FROM);
  const found = useQuery({
    queryKey: ["completions", "question", id],
    queryFn: ({ signal }) => questionOf(id ?? "", signal),
    enabled: id !== null,
  });
  // biome-ignore lint/correctness/useExhaustiveDependencies: once, when it is there; it can then be changed
  useEffect(() => {
    if (id === null || !found.data) return;
    onQuestion(found.data);
    set({ [FROM]: null });
  }, [id, found.data]);
  return found;
}
