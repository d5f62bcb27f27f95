import { useMutation } from "@tanstack/react-query";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note, TextArea } from "../../ui";
import { newestQuestion } from "./stored";

interface SystemPromptProps {
  /** Whose stored completions are looked at, first those of the first. */
  models: string[];
  value: string;
  onChange: (text: string) => void;
}

/** A student knows its task from the system prompt that its teacher was given: it is a click away. */
export function SystemPrompt({ models, value, onChange }: SystemPromptProps) {
  const t = useText();
  const taking = useMutation({
    mutationFn: () => newestQuestion(models.filter(Boolean)),
    onSuccess: (found) => {
      if (found?.system) onChange(found.system);
    },
  });
  return (
    <div className="stack">
      <TextArea
        label={t("playground.system")}
        hint={t("playground.system_hint")}
        rows={6}
        value={value}
        onChange={(event) => onChange(event.target.value)}
      />
      <div>
        <Button icon="completions" busy={taking.isPending} onClick={() => taking.mutate()}>
          {t("playground.system_take")}
        </Button>
      </div>
      {taking.error && <ErrorNote error={taking.error} />}
      {taking.isSuccess && !taking.data?.system && <Note>{t("playground.system_none")}</Note>}
    </div>
  );
}
