package modules

func dotnetType() *Type { return structOf("is_dotnet:i") }

func openDotnet(in Input) Object { return Object{} }
