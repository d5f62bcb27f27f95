import { useText } from "../../i18n";
import { Empty, Snippet } from "../../ui";

/** What to do when there is no eval: compare by a click, by a command, or define one by the SDK. */
export function NoEvals() {
  const t = useText();
  return (
    <Empty title={t("evals.none")}>
      <p>{t("evals.none_text")}</p>
      <p className="quiet">{t("evals.none_command")}</p>
      <Snippet label={t("evals.none_command")} code="stillroom evals run --job ftjob-... --holdout" />
      <p className="quiet">{t("evals.none_sdk")}</p>
      <Snippet label={t("evals.none_sdk")} code={sdk(location.origin)} />
    </Empty>
  );
}

const sdk = (origin: string): string => `from openai import OpenAI

client = OpenAI(base_url="${origin}/v1")
made = client.evals.create(
    name="as the teacher",
    data_source_config={"type": "stored_completions"},
    testing_criteria=[
        {"type": "string_check", "name": "same text", "operation": "eq",
         "input": "{{ sample.output_text }}", "reference": "{{ item.output_text }}"},
    ],
)
run = client.evals.runs.create(
    made.id,
    data_source={
        "type": "completions",
        "source": {"type": "stored_completions", "limit": 100},
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
        "model": "YOUR-MODEL",  # a deployment or model to ask 100 times; each answer is billed at its price
    },
)
print(run.id)
`;
