import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function PlaygroundPage() {
  const t = useText();
  return <Page title={t("playground.title")}>{null}</Page>;
}
