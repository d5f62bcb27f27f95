import { useText } from "../../i18n";
import { ButtonLink, Empty, Snippet } from "../../ui";

export function NoFiles() {
  const t = useText();
  return (
    <Empty title={t("files.empty_title")}>
      <p>{t("files.empty_text")}</p>
      <div>
        <ButtonLink to="/completions" icon="completions">
          {t("files.to_completions")}
        </ButtonLink>
      </div>
      <Snippet code={code()} label={t("files.empty_snippet")} />
    </Empty>
  );
}

function code(): string {
  return `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1")  # OPENAI_API_KEY: a key of this server
file = client.files.create(file=open("training.jsonl", "rb"), purpose="fine-tune")
print(file.id, file.status, file.status_details)`;
}
