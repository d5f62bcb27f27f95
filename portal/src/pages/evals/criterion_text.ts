// A criterion in plain words.

import type { Criterion } from "../../api/types";
import { type Translate, useText } from "../../i18n";
import { useFormat } from "../../ui";

const OPERATIONS = ["eq", "ne", "like", "ilike"] as const;
const ANSWER = /^\{\{\s*sample\.output_text\s*\}\}$/;
const REFERENCE = /^\{\{\s*item\.output_text\s*\}\}$/;

export function useCriterionText(): (criterion: Criterion) => string {
  const t = useText();
  const { number } = useFormat();
  const figure = (value: unknown) => (typeof value === "number" ? number(value) : String(value ?? "0.5"));
  return (criterion) => {
    const [input, reference] = [told(t, criterion.input), told(t, criterion.reference)];
    switch (criterion.type) {
      case "string_check": {
        const operation = OPERATIONS.find((one) => one === criterion.operation) ?? "eq";
        return t(`evals.check_${operation}`, { input, reference });
      }
      case "text_similarity":
        return t("evals.check_similar", {
          input,
          reference,
          metric: String(criterion.evaluation_metric),
          threshold: figure(criterion.pass_threshold),
        });
      case "score_model": {
        const [low, high] = Array.isArray(criterion.range) ? criterion.range : [0, 1];
        return t("evals.check_score", {
          model: String(criterion.model),
          low: figure(low),
          high: figure(high),
          threshold: figure(criterion.pass_threshold ?? (Number(low) + Number(high)) / 2),
        });
      }
      case "label_model":
        return t("evals.check_label", {
          model: String(criterion.model),
          labels: list(criterion.labels),
          passing: list(criterion.passing_labels),
        });
      case "python":
        return t("evals.check_python", { threshold: figure(criterion.pass_threshold) });
      default:
        return criterion.type;
    }
  };
}

/** The usual templates by what they stand for, others as they are. */
function told(t: Translate, template: unknown): string {
  if (typeof template !== "string") return "";
  if (ANSWER.test(template)) return t("evals.the_answer");
  return REFERENCE.test(template) ? t("evals.the_reference") : template;
}

const list = (labels: unknown): string => (Array.isArray(labels) ? labels.map((label) => `“${label}”`).join(", ") : "");
